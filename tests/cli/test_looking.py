"""Commands that only look: doctor, completion, status and inspect on damaged or missing runs."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import metadata

import pytest
from mia_augment.records import Dropped, Region, Sample, Source
from mia_augment.storage.files import write_jsonl
from mia_cli.inspection import doctor as doctor_module
from mia_cli.terminal.display import counts_line


def test_doctor_tells_versions_devices_and_extras(mia):
    result = mia("doctor", "--json")
    found = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert found["mia-augment"]["state"] == "ok"
    assert found["embedded model"]["state"] == "ok"
    assert "cores" in found["cpu"]["text"]
    assert {"bitsandbytes", "pyarrow"} <= set(found)


def test_doctor_fails_if_something_needed_is_missing(mia, monkeypatch):
    monkeypatch.setattr(doctor_module, "NEEDED", ("pillow", "no-such-package"))
    result = mia("doctor")
    assert result.exit_code == 1
    assert "pip install no-such-package" in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(mia, shell):
    assert "_MIA_COMPLETE" in mia("completion", shell).stdout


def test_bash_accepts_the_completion(mia):
    script = mia("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.fixture
def run_dir(tmp_path):
    """A run with one sample that the selection dropped."""
    sample = Sample(
        id="7-sequence2", format="sequence", images=["a.png", "b.png"], answer="A.",
        prompt="Image1:<image>\nImage2:<image>\nIn Image1, what?",
        regions=[Region(image=0, label="Image1"), Region(image=1, label="Image2")], target=0,
        source=Source(ids=["7", "8"], paths=["a.png", "b.png"], question="What?"),
    )  # fmt: skip
    write_jsonl(tmp_path / "augment" / "samples.jsonl", [sample])
    dropped = Dropped(id="7-sequence2", format="sequence", parts=2, rule="perplexity", value=1.0)
    write_jsonl(tmp_path / "select" / "dropped.jsonl", [dropped])
    (tmp_path / "stages.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("name", ["7", "7-sequence2"])
def test_a_record_is_found_by_the_rows_or_the_samples_id(mia, run_dir, name):
    found = json.loads(mia("inspect", run_dir, name, "--json").stdout)
    assert [(entry["stage"], entry["record"]["id"]) for entry in found] == [
        ("augment", "7-sequence2"),
        ("select", "7-sequence2"),
    ]
    assert found[1]["record"]["rule"] == "perplexity"


def test_a_companions_id_does_not_find_the_samples_it_was_added_to(mia, run_dir):
    result = mia("inspect", run_dir, "8")
    assert result.exit_code == 2
    assert "no record '8'" in result.stderr


def test_a_record_is_shown_without_repeating_what_was_said(mia, run_dir):
    shown = mia("inspect", run_dir, "7").stdout
    assert shown.count("format: sequence") == 1
    assert "rule: perplexity" in shown


def test_counts_are_told_without_the_break_downs_and_sizes_in_megabytes():
    assert counts_line({"samples": 1600, "without_ratio": 12, "grid/2": 75}) == "1600 samples, 12 without ratio"
    assert counts_line({"bytes": 13_575_849}) == "13.6 MB"


def test_the_extras_that_doctor_names_exist():
    """`pip install 'mia-dpo-train[qlora]'` must be an extra of that package."""
    named = re.findall(r"(mia-[a-z-]+)\[(\w+)\]", " ".join(purpose for _, purpose in doctor_module.EXTRAS.values()))
    assert len(named) >= 5
    assert [(package, extra) for package, extra in named if extra not in metadata(package).get_all("Provides-Extra", [])] == []
