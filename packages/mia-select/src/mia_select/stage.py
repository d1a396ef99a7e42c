"""The stage `select`: a folder of scored samples in, a folder of preference pairs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, TypeVar

from mia_augment import DataError, FormatName, LogpAlone, PreferencePair, ScoredSample
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    Stage,
    atomic_write,
    check_whole,
    content_hash,
    image_folders,
    read_jsonl,
    read_record,
    relative_folders,
    run_stage,
    write_json,
)
from pydantic import AliasPath, BaseModel, ConfigDict, Field

from mia_select.rules.candidate import Candidate
from mia_select.selection.chosen import chosen_text
from mia_select.selection.funnel import Selection
from mia_select.selection.selector import Selector
from mia_select.settings import SelectSettings

SCORED, PAIRS, DROPPED, SELECTION = "scored.jsonl", "pairs.jsonl", "dropped.jsonl", "selection.json"
TOLD_EVERY = 1000
"""Samples read between two calls of `progress`."""


def select_pairs(
    folder_in: Path, out: Path, settings: SelectSettings | None = None, *, progress: Progress | None = None
) -> Manifest:
    """Write `pairs.jsonl`, `dropped.jsonl`, `selection.json` and a manifest; returns the manifest.

    A folder that already holds this very selection is left as it is. Of a sample nothing stays in memory but a few numbers.

    Raises:
        ConfigError: another process is writing into `out`, or it holds the results of another stage.
        DataError: the scored samples are missing, broken, or not as many as their manifest counts; or no pair is left (with how
            many each rule dropped).
    """
    return run_stage(select_stage(folder_in, out, settings or SelectSettings()), progress).manifest


def select_stage(folder_in: Path, out: Path, settings: SelectSettings) -> Stage:
    """The selection from the scored samples of a folder, yet to be made."""

    def plan() -> Manifest:
        planned = selection_manifest(folder_in, out, settings.model_dump(mode="json"))
        check_whole(folder_in)
        return planned

    def make(planned: Manifest, progress: Progress) -> Manifest:
        report = _write(folder_in / SCORED, out, settings, progress)
        return planned.model_copy(update={"counts": _counts(report)})

    return Stage("select", out, plan, make, results=(out / DROPPED, out / SELECTION))


def selection_manifest(folder_in: Path, out: Path, settings: dict[str, Any], digest: str | None = None) -> Manifest:
    """The manifest, without counts, of pairs chosen from the scored samples of a folder.

    Args:
        folder_in: the folder of scored samples.
        out: where the pairs will lie.
        settings: what decides which pairs are chosen.
        digest: content hash of the scored samples, if it is known already.

    Raises:
        DataError: no scored samples there.
    """
    source = folder_in / SCORED
    if not source.is_file():
        raise DataError(f"{source}: no such file; expected scored samples, as `mia score` writes them")
    return Manifest(
        stage="select",
        version=version("mia-select"),
        settings=settings,
        inputs={SCORED: digest or content_hash(source)},
        image_folders=relative_folders(image_folders(folder_in), to=out),
    )


def read_selection(folder: Path) -> Selection:
    """The counts, thresholds and warnings that a selection left behind."""
    path = folder / SELECTION
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the folder of a finished selection")
    return read_record(path, Selection, "run `mia select` again")


class _OwnAnswer(BaseModel):
    """The fields of a scored sample from which thresholds are set; all others are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: FormatName
    answer: str
    own_answer: str | None = None
    response: str
    regions: list[object]
    ratio: float | None = Field(None, validation_alias=AliasPath("attention", "ratio"))
    layer: object = Field(None, validation_alias=AliasPath("attention", "layer"))
    target: int = 0
    logp_alone: LogpAlone | None = Field(None, validation_alias=AliasPath("attention", "logp_alone"))
    own_mean_logp: float | None = None

    def candidate(self, settings: SelectSettings) -> Candidate:
        return Candidate(
            format=self.format,
            parts=len(self.regions),
            chosen=chosen_text(self.answer, self.own_answer, settings),
            rejected=self.response,
            ratio=self.ratio,
            layer=self.layer,
            target=self.target,
            logp_alone=self.logp_alone,
            own_mean_logp=self.own_mean_logp,
        )


RecordT = TypeVar("RecordT", ScoredSample, _OwnAnswer)


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

    def own_answers(self, settings: SelectSettings) -> Iterator[Candidate]:
        """The model's own answers, with the few fields that thresholds need; counts as a pass."""
        return (record.candidate(settings) for record in self._counted(read_jsonl(self.path, _OwnAnswer)))

    def _counted(self, records: Iterator[RecordT]) -> Iterator[RecordT]:
        before = self._read
        for record in records:
            yield record
            self._read += 1
            if self._read % TOLD_EVERY == 0:
                self._tell()
        self._total = (self._read - before) * self._passes
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._read, self._total)


def _write(source: Path, out: Path, settings: SelectSettings, progress: Progress) -> Selection:
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


def _counts(report: Selection) -> dict[str, int]:
    counts = {"samples": report.samples, "candidates": report.candidates, "pairs": report.pairs}
    counts |= {f"{bucket.format}/{bucket.parts}": bucket.kept for bucket in report.buckets}
    return counts | {f"dropped/{rule.rule}": rule.dropped for rule in report.rules if rule.dropped}
