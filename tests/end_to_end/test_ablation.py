"""`mia ablate` on the embedded model: equal arms, resumable, the same base answers for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from mia_cli.config import load_config
from mia_cli.quickstart import prepare

PAIRS = 6


class Silent:
    """A display that shows nothing."""

    def say(self, *_: object) -> None: ...

    def progress(self, _: str) -> object:
        import contextlib

        return contextlib.nullcontext(lambda done, total: None)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A small quickstart's pipeline.yaml, one epoch."""
    path = prepare(tmp_path, Silent(), pictures=12, test_pictures=12, per_bucket=3, seed=0, model="embedded")  # type: ignore[arg-type]
    text = path.read_text().replace("epochs: 3", "epochs: 1")
    path.write_text(text)
    assert load_config(path).train.epochs == 1
    return path


def test_arms_have_equal_pairs_and_are_measured_on_the_same_samples(mia: Callable[..., Result], pipeline: Path) -> None:
    call = ("ablate", pipeline, "--variants", "no_attention,nll_only", "--pairs", str(PAIRS), "--json")
    result = mia(*call)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {row["variant"] for row in found["rows"]} == {"full", "no_attention", "nll_only"}
    assert {(row["group"], row["n"]) for row in found["rows"] if row["group"] == "sequence"} == {("sequence", 12)}

    folder = load_config(pipeline).run_dir / "ablate" / "seed-0"
    pairs = {arm: (folder / arm / "pairs.jsonl").read_text().splitlines() for arm in ("full", "no_attention", "nll_only")}
    assert {len(lines) for lines in pairs.values()} == {PAIRS}
    assert pairs["nll_only"] == pairs["full"]
    base = {(folder / arm / "evaluate" / "base.jsonl").read_bytes() for arm in pairs}
    assert len(base) == 1

    nll = [json.loads(line) for line in (folder / "nll_only" / "train" / "metrics.jsonl").read_text().splitlines()]
    assert nll[-1]["loss"] == pytest.approx(nll[-1]["nll"], rel=1e-6)  # no preference loss in this arm

    made = {path: path.stat().st_mtime_ns for path in folder.rglob("train/manifest.json")}
    assert json.loads(mia(*call).stdout) == found
    assert made == {path: path.stat().st_mtime_ns for path in folder.rglob("train/manifest.json")}


def test_an_unknown_variant_is_named(mia: Callable[..., Result], pipeline: Path) -> None:
    result = mia("ablate", pipeline, "--variants", "no_atention")
    assert result.exit_code == 2
    assert "no_atention" in result.stderr
    assert "no_attention" in result.stderr
