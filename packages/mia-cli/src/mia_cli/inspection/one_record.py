"""One record through all stages of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mia_attention import analyze_one
from mia_augment import DataError, Dropped, PreferencePair, Record, Sample, ScoredSample, Skipped
from mia_augment.storage import read_jsonl
from mia_select.evaluation import Prediction

from mia_cli.layout import Folders

RECORD_FILES: tuple[tuple[str, str, str, type[Record]], ...] = (
    ("augment", "samples", "samples.jsonl", Sample),
    ("augment", "samples", "skipped.jsonl", Skipped),
    ("held_out", "held_out", "samples.jsonl", Sample),
    ("held_out", "held_out", "skipped.jsonl", Skipped),
    ("score", "scored", "scored.jsonl", ScoredSample),
    ("score", "scored", "skipped.jsonl", Skipped),
    ("select", "pairs", "pairs.jsonl", PreferencePair),
    ("select", "pairs", "dropped.jsonl", Dropped),
    ("evaluate", "evaluated", "predictions.jsonl", Prediction),
)
"""(stage, property of `Folders`, file, kind of record) in the order of the stages."""


def inspect_record(run_dir: Path, wanted: str) -> list[dict[str, Any]]:
    """What every stage has to say about a record: a sample's id, or a source row's id for all that was made of it.

    Returns:
        One entry per record found: stage, file, and the record; a scored sample also with its analysis.

    Raises:
        DataError: no stage knows the id.
    """
    folders = Folders(run_dir)
    found: list[dict[str, Any]] = []
    names = {wanted}
    for stage, place, file, kind in RECORD_FILES:
        path = getattr(folders, place) / file
        if path.is_file():
            for record in _matching(path, kind, names):
                names.add(record.id)  # type: ignore[attr-defined]
                found.append({"stage": stage, "file": str(path), "record": record.model_dump(mode="json"), **_more(record)})
    if not found:
        raise DataError(f"{run_dir}: no record {wanted!r} in any stage; expected the id of a source row, a sample or a pair")
    return found


def _matching(path: Path, kind: type[Record], names: set[str]) -> Iterator[Record]:
    for record in read_jsonl(path, kind):
        own = str(getattr(record, "id", ""))
        asked = {own, own.rpartition("~")[0]}
        if isinstance(record, Sample):
            asked.add(record.source.ids[record.target])
        if asked & names:
            yield record


def _more(record: Record) -> dict[str, Any]:
    return {"analysis": analyze_one(record).model_dump(mode="json")} if isinstance(record, ScoredSample) else {}
