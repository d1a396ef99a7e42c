"""The ablation in the report: every arm with its pairs, gains and intervals; what others wrote is only text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mia_augment.errors import DataError
from mia_augment.storage.files import Manifest, write_json, write_manifest
from mia_cli.config.schema import ReportSettings
from mia_cli.report import write_report
from mia_select.ablation.arm_folders import Ablation, ArmSummary
from mia_select.evaluation.comparison import Outcome, compare

EVIL = "<script>alert(1)</script>"


def arm(name: str, **more: object) -> ArmSummary:
    fields = {"variant": name, "title": name.replace("_", " "), "available": 90, "pairs": 50, "train": {}}
    return ArmSummary.model_validate({**fields, "compared_with": "full", "same_as": None, "left_out": None, **more})


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """200 sequences and 100 single images with two seeds: half are right before, `worse` mends none, `full` all."""
    outcomes = [
        Outcome(
            id=str(i),
            format="sequence" if i < 200 else "single",
            parts=2 if i < 200 else 1,
            before=i % 2 == 0,
            after={"full": [True, True], "worse": [i % 2 == 0, i % 2 == 0 or i % 20 == 1], "twin": [True, True]},
        )
        for i in range(300)
    ]
    arms = [
        arm("full", compared_with=None),
        arm("worse", title=EVIL),
        arm("twin", same_as="full"),
        arm("grid_only", pairs=0, left_out=f"no pairs {EVIL}"),
    ]
    result = Ablation(comparison=compare(outcomes), arms=arms)
    write_json(tmp_path / "ablate" / "ablation.json", result.model_dump(mode="json"))
    write_manifest(tmp_path / "augment", Manifest(stage="augment", version="0", settings={}, inputs={}, counts={"rows": 3}))
    return tmp_path


def test_the_report_tells_every_arm(run_dir: Path) -> None:
    out = run_dir / "report.html"
    write_report(run_dir, out, ReportSettings())
    text = out.read_text("utf-8")
    ours = text[text.index('<h2 id="ablation">') :]
    rows = [re.sub(r"<[^>]+>", " ", row) for row in re.findall(r"<tr.*?</tr>", ours.split("</table>")[0], re.S)]
    assert len(rows) == 4
    assert re.search(r"full\s+50\s+\+50\.0 \s*\[\+4\d\.\d, \+5\d\.\d\]\s+\+50\.0", rows[1])
    assert re.search(r"50\s+\+2\.5\*", rows[2])
    assert "twin: the same pairs and training as &#39;full&#39;" in ours
    assert "300 held-out questions" in ours
    assert 'class="worse"' in ours  # its difference to the whole method lies below 0
    assert "+0.0, +5.0" in ours  # each seed by itself
    assert EVIL not in text
    assert "grid only: left out: no pairs &lt;script&gt;" in ours


def test_a_broken_ablation_is_named(run_dir: Path) -> None:
    path = run_dir / "ablate" / "ablation.json"
    path.write_text(json.dumps({"arms": 3}))
    with pytest.raises(DataError, match=r"ablation\.json: not a valid ablation"):
        write_report(run_dir, run_dir / "report.html", ReportSettings())
