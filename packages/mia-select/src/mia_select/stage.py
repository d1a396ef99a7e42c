"""The stage `select`: a folder of scored samples in, a folder of preference pairs out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, TypeVar

from mia_augment import DataError, PreferencePair, ScoredSample
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    atomic_write,
    check_whole,
    content_hash,
    image_folders,
    only_writer,
    read_jsonl,
    read_manifest,
    read_record,
    relative_folders,
    what_is_missing,
    write_json,
    write_manifest,
)

from mia_select.rules.ratios import GlanceRecord
from mia_select.selection.funnel import Selection
from mia_select.selection.selector import Selector
from mia_select.settings import SelectSettings

SCORED, PAIRS, DROPPED, SELECTION = "scored.jsonl", "pairs.jsonl", "dropped.jsonl", "selection.json"
STEP = 1000

RecordT = TypeVar("RecordT", ScoredSample, GlanceRecord)


def select_pairs(
    folder_in: Path, out: Path, settings: SelectSettings | None = None, *, progress: Progress | None = None
) -> Manifest:
    """Write `pairs.jsonl`, `dropped.jsonl`, `selection.json` and a manifest; returns the manifest.

    A folder that already holds this very selection is left as it is. Of a sample nothing stays in memory but a few numbers.

    Raises:
        ConfigError: another process is writing into `out`.
        DataError: the scored samples are missing, broken, or not as many as their manifest counts; or no pair is left (with how
            many each rule dropped).
    """
    settings = settings or SelectSettings()
    started = time.monotonic()
    source = folder_in / SCORED
    if not source.is_file():
        raise DataError(f"{source}: no such file; expected scored samples, as `mia score` writes them")
    planned = _manifest(source, folder_in, out, settings)
    if (done := _finished(out, planned)) is not None:
        return done
    check_whole(folder_in)
    with only_writer(out):
        return _finished(out, planned) or _select(source, out, settings, planned, started, progress)


def _finished(out: Path, planned: Manifest) -> Manifest | None:
    """The manifest of a folder that holds this very selection, with all of its files."""
    done = read_manifest(out)
    return done if done is not None and done.same_work(planned) and what_is_missing(out) is None else None


def _select(
    source: Path, out: Path, settings: SelectSettings, planned: Manifest, started: float, progress: Progress | None
) -> Manifest:
    report = _write(source, out, settings, progress)
    counts = _counts(report)
    manifest = planned.model_copy(update={"counts": counts, "seconds": round(time.monotonic() - started, 3)})
    write_manifest(out, manifest)
    return manifest


def read_selection(folder: Path) -> Selection:
    """The counts, thresholds and warnings that a selection left behind."""
    path = folder / SELECTION
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the folder of a finished selection")
    return read_record(path, Selection, "run `mia select` again")


class Samples:
    """Scored samples of a file; each iteration reads it anew.

    `progress` hears how many were read in all of the iterations, of which there will be `passes`.
    """

    def __init__(self, path: Path, progress: Progress | None = None, *, passes: int = 1) -> None:
        self.path = path
        self._progress = progress
        self._passes = passes
        self._read = 0
        self._total: int | None = None

    def __iter__(self) -> Iterator[ScoredSample]:
        return self._counted(read_jsonl(self.path, ScoredSample))

    def glances(self) -> Iterator[GlanceRecord]:
        """The same samples with the few fields that thresholds need; counts as a pass."""
        return self._counted(read_jsonl(self.path, GlanceRecord))

    def _counted(self, records: Iterator[RecordT]) -> Iterator[RecordT]:
        before = self._read
        for record in records:
            yield record
            self._read += 1
            if self._read % STEP == 0:
                self._tell()
        self._total = (self._read - before) * self._passes
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._read, self._total)


def _write(source: Path, out: Path, settings: SelectSettings, progress: Progress | None) -> Selection:
    selector = Selector(settings)
    with contextlib.ExitStack() as files:
        pairs: IO[Any] = files.enter_context(atomic_write(out / PAIRS))
        dropped: IO[Any] = files.enter_context(atomic_write(out / DROPPED))
        for record in selector.run(Samples(source, progress, passes=1 + int(settings.calibrates))):
            (pairs if isinstance(record, PreferencePair) else dropped).write(record.model_dump_json() + "\n")
        report = selector.report()
        if not report.pairs:
            raise DataError(_empty(source, selector, report))
        (out / MANIFEST).unlink(missing_ok=True)  # it spoke of the files that are about to be replaced
    write_json(out / SELECTION, report.model_dump())
    return report


def _empty(source: Path, selector: Selector, report: Selection) -> str:
    hints = "".join(f"\n  {warning}" for warning in report.warnings)
    return (
        f"{source}: expected at least one pair, none of the {report.samples} scored samples is left; "
        f"dropped by rule: {selector.funnel.explain_drops()}; loosen the rule that took most, or score more samples{hints}"
    )


def _manifest(source: Path, folder_in: Path, out: Path, settings: SelectSettings) -> Manifest:
    return Manifest(
        stage="select",
        version=version("mia-select"),
        settings=settings.model_dump(mode="json"),
        inputs={SCORED: content_hash(source)},
        image_folders=relative_folders(image_folders(folder_in), to=out),
    )


def _counts(report: Selection) -> dict[str, int]:
    counts = {"samples": report.samples, "candidates": report.candidates, "pairs": report.pairs}
    counts |= {f"{bucket.format}/{bucket.parts}": bucket.kept for bucket in report.buckets}
    return counts | {f"dropped/{rule.rule}": rule.dropped for rule in report.rules if rule.dropped}
