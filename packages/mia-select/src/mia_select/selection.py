"""From scored samples to preference pairs, streaming."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from mia_augment.records import Dropped, PreferencePair, ScoredSample

from mia_select.calibration import Origin, Tally, attention_warnings, calibrated, describe
from mia_select.candidates import (
    Candidate,
    Failure,
    broken,
    candidates,
    is_right,
    stable_key,
    too_far_or_too_near,
    unlikely_hallucination,
    unusable,
    wrong_kind,
)
from mia_select.funnel import Funnel, Selection
from mia_select.glance import glances
from mia_select.seen import SeenKeys
from mia_select.settings import SelectSettings
from mia_select.thresholds import Bucket, threshold_for

Group = tuple[str | int, ...]


def select(scored: Iterable[ScoredSample], settings: SelectSettings | None = None) -> Iterator[PreferencePair | Dropped]:
    """Yield a pair, or which rule dropped it at which value, for every candidate in the order of the samples.

    Memory stays flat if `scored` can be iterated again (a list, an object that reads a file): settings that need to see all
    samples first (`calibrate`, `balance`, `max_pairs`) go through it two or three times. A one-shot iterator is then kept in
    memory. Use `Selector` to get the counts as well.
    """
    yield from Selector(settings).run(scored)


class Selector:
    """One selection with its counts.

    >>> selector = Selector(SelectSettings(calibrate="auto"))
    >>> pairs = [record for record in selector.run(scored) if isinstance(record, PreferencePair)]
    >>> selector.report().warnings
    []
    """

    def __init__(self, settings: SelectSettings | None = None) -> None:
        self.settings = settings or SelectSettings()
        self.funnel = Funnel()
        self.samples = 0
        self._tally = Tally()
        self._thresholds = _Thresholds(self.settings)
        self._origins: dict[Bucket, Origin] = {}
        self._ledger = _Ledger(self.settings)

    def run(self, scored: Iterable[ScoredSample]) -> Iterator[PreferencePair | Dropped]:
        """Yield a pair or a drop for every candidate; call it once."""
        settings = self.settings
        if settings.surveys and iter(scored) is scored:
            scored = list(scored)
        if settings.calibrates:
            self._calibrate(scored)
        limits = self._limits(scored) if settings.balance or settings.max_pairs is not None else None
        for sample in scored:
            self.samples += 1
            for candidate in candidates(sample, settings):
                failure = self._failure(candidate, self._tally) or self._ledger.refuse(candidate)
                if failure is None and limits is not None:
                    failure = limits.refuse(candidate)
                if failure is None:
                    self.funnel.keep(candidate.bucket)
                    yield candidate.pair()
                else:
                    self.funnel.drop(candidate.bucket, failure[0])
                    yield candidate.dropped(*failure)

    def report(self) -> Selection:
        """Counts, thresholds and warnings of what `run` has yielded."""
        lines = describe(self._tally, self._thresholds, self._origins) if self.settings.attention else []
        attention = attention_warnings(self._tally, lines, self.settings)
        return Selection(
            samples=self.samples,
            candidates=self.funnel.candidates,
            pairs=self.funnel.pairs,
            rules=self.funnel.rules(),
            buckets=self.funnel.buckets(),
            thresholds=lines,
            warnings=attention + self.funnel.warnings(),
        )

    def _failure(self, candidate: Candidate, tally: Tally | None) -> Failure | None:
        """The first rule that the candidate fails by itself; notes its ratio in the tally, right or wrong."""
        settings, sample = self.settings, candidate.sample
        if failure := unusable(candidate, settings):
            return failure
        right = is_right(sample.answer, candidate.rejected or "")
        ratio = sample.attention.ratio
        if tally is not None and candidate.kind == "own" and ratio is not None:
            tally.add(candidate.bucket, ratio, right)
        if right:
            return "correct", candidate.rejected
        return unlikely_hallucination(candidate, settings, self._thresholds) or too_far_or_too_near(candidate, settings)

    def _calibrate(self, scored: Iterable[ScoredSample]) -> None:
        tally = Tally()
        for sample in glances(scored):
            ratio = sample.attention.ratio
            if ratio is None or wrong_kind(sample, self.settings) or broken(sample.answer, sample.response, self.settings):
                continue
            tally.add((sample.format, len(sample.regions)), ratio, is_right(sample.answer, sample.response))
        for bucket, (threshold, origin) in calibrated(tally, self.settings).items():
            self._thresholds[bucket] = threshold
            self._origins[bucket] = origin

    def _limits(self, scored: Iterable[ScoredSample]) -> _Limits:
        """What `balance` and `max_pairs` will let through, from all candidates that pass the other rules."""
        keys: dict[Group, array[int]] = defaultdict(lambda: array("Q"))
        ledger = _Ledger(self.settings)
        for sample in scored:
            for candidate in candidates(sample, self.settings):
                if self._failure(candidate, None) is None and ledger.refuse(candidate) is None:
                    keys[_group(candidate, self.settings)].append(stable_key(self.settings.seed, candidate.id))
        return _Limits(self.settings, keys)


class _Thresholds(dict[Bucket, float | None]):
    """Fills itself from the table."""

    def __init__(self, settings: SelectSettings) -> None:
        super().__init__()
        self._table = settings.thresholds

    def __missing__(self, bucket: Bucket) -> float | None:
        value = self[bucket] = threshold_for(*bucket, self._table)
        return value


class _Ledger:
    """Remembers the pairs made so far, for the rules that compare with those: `duplicate` and `per_image`."""

    def __init__(self, settings: SelectSettings) -> None:
        self._per_image = settings.per_image
        self._ids = SeenKeys()
        self._contents = SeenKeys()
        self._images: Counter[str] = Counter()

    def refuse(self, candidate: Candidate) -> Failure | None:
        """The rule by which an earlier pair rules this one out; otherwise the candidate is noted as made."""
        sample, source = candidate.sample, candidate.sample.source
        content = hash((sample.prompt, *sample.images, *source.paths, sample.answer, candidate.rejected))
        name = hash(candidate.id)
        if name in self._ids:
            return "duplicate", "id"
        if content in self._contents:
            return "duplicate", "content"
        if self._per_image is not None:
            path = source.paths[sample.target] if sample.target < len(source.paths) else sample.images[0]
            if self._images[path] >= self._per_image:
                return "per_image", path
            self._images[path] += 1
        self._ids.add(name)
        self._contents.add(content)
        return None


class _Limits:
    """The largest key that each group, and the whole, may still use; keys are random numbers made of seed and id."""

    def __init__(self, settings: SelectSettings, keys: dict[Group, array[int]]) -> None:
        self._settings = settings
        arrays = {group: np.sort(np.frombuffer(values, dtype=np.uint64)) for group, values in keys.items()}
        if settings.balance and arrays:
            size = min(map(len, arrays.values()))
            arrays = {group: values[:size] for group, values in arrays.items()}
        self._groups = {group: int(values[-1]) for group, values in arrays.items()}
        everything = np.sort(np.concatenate(list(arrays.values()))) if arrays else np.empty(0, dtype=np.uint64)
        cut = settings.max_pairs
        self._last = int(everything[cut - 1]) if cut is not None and cut < len(everything) else None

    def refuse(self, candidate: Candidate) -> Failure | None:
        group = _group(candidate, self._settings)
        key = stable_key(self._settings.seed, candidate.id)
        if key > self._groups[group]:
            return "balance", "/".join(map(str, group))
        if self._last is not None and key > self._last:
            return "max_pairs", float(self._settings.max_pairs or 0)
        return None


def _group(candidate: Candidate, settings: SelectSettings) -> Group:
    format_, parts = candidate.bucket
    values: dict[str, tuple[str | int, ...]] = {
        "format": (format_,),
        "parts": (format_, parts),
        "target": (candidate.sample.target,),
    }
    return tuple(value for key in settings.balance for value in values[key])
