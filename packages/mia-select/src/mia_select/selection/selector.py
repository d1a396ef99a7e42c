"""From scored samples to preference pairs, streaming."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from mia_augment import Bucket, ConfigError, Dropped, PreferencePair, ScoredSample

from mia_select.rules.agreement import agreement_cut
from mia_select.rules.calibration import Origin, Tally, attention_warnings, calibrated, describe
from mia_select.rules.one_sided import AnswerCounts
from mia_select.rules.ratios import glances
from mia_select.rules.thresholds import threshold_for
from mia_select.selection.candidates import (
    Candidate,
    Failure,
    broken,
    candidates,
    is_right,
    too_far_or_too_near,
    unlikely_hallucination,
    unusable,
    wrong_kind,
)
from mia_select.selection.chosen import chosen_text
from mia_select.selection.funnel import Funnel, Selection
from mia_select.selection.limits import limited
from mia_select.selection.seen import SeenKeys
from mia_select.settings import SelectSettings


def select(scored: Iterable[ScoredSample], settings: SelectSettings | None = None) -> Iterator[PreferencePair | Dropped]:
    """Yield a pair, or which rule dropped it at which value, for every candidate in the order of the samples.

    Memory stays flat if `scored` can be iterated again (a list, an object that reads a file): `calibrate` goes through it
    twice, and keeps a one-shot iterator in memory. `balance` and `max_pairs` keep what comes before them in a temporary file.
    Use `Selector` to get the counts as well.
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
        self._answers = AnswerCounts()
        self.samples = 0
        self._tally = Tally()
        self._thresholds = _Thresholds(self.settings)
        self._origins: dict[Bucket, Origin] = {}
        self._ledger = _Ledger(self.settings)
        self._verdicts = bytearray()
        """What calibration found, a byte per sample: 1 where its response is right."""

    def run(self, scored: Iterable[ScoredSample]) -> Iterator[PreferencePair | Dropped]:
        """Yield a pair or a drop for every candidate; call it once."""
        settings = self.settings
        if settings.calibrates:
            scored = list(scored) if iter(scored) is scored else scored
            self._calibrate(scored)
        judged = self._judge(scored)
        for record in limited(judged, settings) if settings.balance or settings.max_pairs is not None else judged:
            if isinstance(record, PreferencePair):
                self.funnel.keep((record.format, len(record.regions)))
                self._answers.add(record.chosen, record.rejected)
            else:
                self.funnel.drop((record.format, record.parts), record.rule)
            yield record

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
            warnings=attention + self.funnel.warnings() + self._answers.warnings(),
        )

    def _judge(self, scored: Iterable[ScoredSample]) -> Iterator[PreferencePair | Dropped]:
        """All rules but those that compare with all other pairs."""
        for sample in scored:
            self.samples += 1
            for candidate in candidates(sample, self.settings):
                failure = self._failure(candidate) or self._ledger.refuse(candidate)
                yield candidate.pair() if failure is None else candidate.dropped(*failure)

    def _failure(self, candidate: Candidate) -> Failure | None:
        """The first rule that the candidate fails by itself."""
        settings = self.settings
        if failure := unusable(candidate, settings):
            return failure
        if self._is_right(candidate):
            return "correct", candidate.rejected
        return unlikely_hallucination(candidate, settings, self._thresholds) or too_far_or_too_near(candidate, settings)

    def _is_right(self, candidate: Candidate) -> bool:
        """Whether the candidate is right; notes the ratio of a model's own answer in the tally, unless calibration did."""
        sample = candidate.sample
        ratio = sample.attention.ratio if candidate.kind == "own" else None
        if ratio is not None and self._verdicts:
            return bool(self._verdicts[self.samples - 1])
        right = is_right(candidate.chosen.text, candidate.rejected or "")
        if ratio is not None:
            self._tally.add(candidate.bucket, ratio, right)
        return right

    def _calibrate(self, scored: Iterable[ScoredSample]) -> None:
        asked: Iterable[tuple[int, Bucket, float]] = self._equal(scored)
        cuts: dict[Bucket, float] = {}
        if self.settings.correct == "likely":
            asked = list(asked)
            cuts = _agreement(asked)
        for number, bucket, ratio in asked:
            right = bool(self._verdicts[number]) or ratio > cuts.get(bucket, math.inf)
            self._verdicts[number] = right
            self._tally.add(bucket, ratio, right)
        for bucket, (threshold, origin) in calibrated(self._tally, self.settings).items():
            self._thresholds[bucket] = threshold
            self._origins[bucket] = origin

    def _equal(self, scored: Iterable[ScoredSample]) -> Iterator[tuple[int, Bucket, float]]:
        """Notes which responses equal the chosen answer; yields number, bucket and ratio of those that are asked for."""
        settings = self.settings
        for number, sample in enumerate(glances(scored)):
            ratio, chosen = sample.attention.ratio, chosen_text(sample, settings)
            if ratio is None or wrong_kind(sample, chosen, settings) or broken(chosen, sample.response, settings):
                self._verdicts.append(False)
                continue
            if settings.correct == "likely" and sample.attention.layer != "alone":
                raise ConfigError(
                    f"correct: likely expected samples scored with `score.layer: alone`, got layer {sample.attention.layer}: a "
                    "share of attention does not tell what an answer means; score them anew, or set correct: equal"
                )
            self._verdicts.append(is_right(chosen.text, sample.response))
            yield number, (sample.format, len(sample.regions)), ratio


def _agreement(asked: Iterable[tuple[int, Bucket, float]]) -> dict[Bucket, float]:
    """From which share an answer counts as right, for each format and number of images."""
    shares: defaultdict[Bucket, array[float]] = defaultdict(lambda: array("d"))
    for _, bucket, ratio in asked:
        shares[bucket].append(ratio)
    return {bucket: agreement_cut(values, bucket[1]) for bucket, values in shares.items()}


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
        content = hash((sample.prompt, *sample.images, *source.paths, candidate.chosen.text, candidate.rejected))
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
