"""From scored samples to preference pairs, streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mia_augment import Bucket, ConfigError, Dropped, PreferencePair, ScoredSample

from mia_select.rules.attention import threshold_for
from mia_select.rules.candidate import Candidate, PairCandidate
from mia_select.rules.limits import limited
from mia_select.rules.table import BEFORE_CORRECT, JOINED, RULES, RuleFailure, first_failure
from mia_select.rules.wanted import is_right
from mia_select.selection.agreement import Agreement
from mia_select.selection.calibration import Origin, Tally, attention_warnings, calibrated, describe
from mia_select.selection.candidates import candidates, own_answer
from mia_select.selection.chosen import chosen_text
from mia_select.selection.funnel import Funnel, Selection
from mia_select.selection.one_sided import AnswerCounts
from mia_select.selection.other_pictures import OtherPictures
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
        self._others = OtherPictures(self.settings)
        self._without = 0
        self.samples = 0
        self._tally = Tally()
        self._thresholds = _Thresholds(self.settings)
        self._origins: dict[Bucket, Origin] = {}
        self._floor: float | None = None
        self._memories = [(rule.name, rule.memory(self.settings)) for rule in RULES if rule.memory is not None]
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
                if texts := [answer.text for answer in record.rejected_answers]:
                    self._answers.add(record.chosen, *texts)
                self._without += self.settings.other_picture is not None and record.rejected_images is None
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
            said_of_none_below=self._floor,
            warnings=attention + self.funnel.warnings() + self._answers.warnings() + self._without_pictures(),
        )

    def _without_pictures(self) -> list[str]:
        """A line for pairs that were to have another picture and have none."""
        if not self._without:
            return []
        why = ", ".join(f"{reason}: {count}" for reason, count in self._others.missing.most_common())
        return [f"{self._without} of {self.funnel.pairs} pairs have no other picture (of all {self.samples} samples, {why})"]

    def _judge(self, scored: Iterable[ScoredSample]) -> Iterator[PreferencePair | Dropped]:
        """All rules but those that compare with all other pairs."""
        for sample in scored:
            self.samples += 1
            waiting: list[PairCandidate] = []
            for candidate in candidates(sample, self.settings, self._others):
                candidate.joins = waiting[0].id if waiting else None
                failure = self._by_itself(candidate) or self._by_earlier(candidate)
                if failure is None:
                    waiting.append(candidate)
                    failure = (JOINED, candidate.joins) if candidate.joins is not None else None
                if failure is not None:
                    yield candidate.dropped(*failure)
                if len(waiting) == self.settings.rejected_per_prompt:
                    yield waiting[0].pair(waiting[1:])
                    waiting = []
            if waiting:
                yield waiting[0].pair(waiting[1:])

    def _by_itself(self, candidate: Candidate) -> RuleFailure | None:
        """The first rule that the candidate fails by itself; notes an own answer's ratio, unless calibration did."""
        measured = candidate.own and candidate.ratio is not None
        if measured:
            candidate.threshold = self._thresholds[candidate.bucket]
        if measured and self._verdicts:
            candidate.right = bool(self._verdicts[self.samples - 1])
        failure = first_failure(candidate, self.settings)
        if candidate.ratio is not None and candidate.right is not None and not self._verdicts:
            self._tally.add(candidate.bucket, candidate.ratio, candidate.right)
        return failure

    def _by_earlier(self, candidate: PairCandidate) -> RuleFailure | None:
        """The rule by which an earlier pair rules this one out; otherwise the candidate is noted as made."""
        for name, memory in self._memories:
            if (value := memory.refuses(candidate)) is not None:
                return name, value
        for _, memory in self._memories:
            memory.note(candidate)
        return None

    def _calibrate(self, scored: Iterable[ScoredSample]) -> None:
        likely, agreement = self.settings.correct == "likely", Agreement()
        asked: list[tuple[int, Bucket, float]] = []
        for number, candidate, ratio in self._equal(scored):
            if likely:  # judged when all are known
                agreement.add(candidate)
                asked.append((number, candidate.bucket, ratio))
            else:
                self._tally.add(candidate.bucket, ratio, bool(self._verdicts[number]))
        for (number, bucket, ratio), agrees in zip(asked, agreement.verdicts(), strict=True):
            self._verdicts[number] = right = bool(self._verdicts[number]) or agrees
            self._tally.add(bucket, ratio, right)
        self._floor = agreement.floor()
        for bucket, (threshold, origin) in calibrated(self._tally, self.settings).items():
            self._thresholds[bucket] = threshold
            self._origins[bucket] = origin

    def _equal(self, scored: Iterable[ScoredSample]) -> Iterator[tuple[int, Candidate, float]]:
        """Notes which responses equal the chosen answer; yields number, candidate and ratio of those that are asked for."""
        for number, candidate in enumerate(_own_answers(scored, self.settings)):
            ratio = candidate.ratio
            if ratio is None or first_failure(candidate, self.settings, BEFORE_CORRECT) is not None:
                self._verdicts.append(False)
                continue
            if self.settings.correct == "likely" and candidate.layer != "alone":
                raise ConfigError(
                    f"correct: likely expected samples scored with `score.layer: alone`, got layer {candidate.layer}: a "
                    "share of attention does not tell what an answer means; score them anew, or set correct: equal"
                )
            self._verdicts.append(is_right(candidate.chosen.text, candidate.rejected or ""))
            yield number, candidate, ratio


def _own_answers(scored: Iterable[ScoredSample], settings: SelectSettings) -> Iterable[Candidate]:
    """The model's own answers; samples in a file (`mia_select.stage.Samples`) are read for these alone, in half the time."""
    fast = getattr(scored, "own_answers", None)
    if fast is not None:
        found: Iterable[Candidate] = fast(settings)
        return found
    return (own_answer(sample, chosen_text(sample.answer, sample.own_answer, settings)) for sample in scored)


class _Thresholds(dict[Bucket, float | None]):
    """Fills itself from the table."""

    def __init__(self, settings: SelectSettings) -> None:
        super().__init__()
        self._table = settings.thresholds

    def __missing__(self, bucket: Bucket) -> float | None:
        value = self[bucket] = threshold_for(*bucket, self._table)
        return value
