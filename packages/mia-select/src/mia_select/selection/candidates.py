"""Answers that might become the rejected side of a pair, and the rules each must pass by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mia_augment import Bucket, Dropped, PreferencePair, ScoredSample, Scores, normalize_answer, seed_from
from rapidfuzz.distance import Levenshtein

from mia_select.rules.degenerate import degenerate
from mia_select.rules.ratios import Glance
from mia_select.rules.thresholds import looks_elsewhere
from mia_select.selection.chosen import ChosenText, chosen_ids, chosen_text
from mia_select.settings import SelectSettings

RULES = (
    "format",
    "no_chosen",
    "answer_too_long",
    "no_confusion",
    "degenerate",
    "correct",
    "unmeasured",
    "attention",
    "perplexity",
    "length_ratio",
    "edit_distance",
    "duplicate",
    "per_image",
    "balance",
    "max_pairs",
)
"""Every rule, in the order in which a candidate meets them; one that fails is counted under the first it fails."""

SHORT = 16
"""Lengths under this count as this in the length ratio: of two short answers neither is long."""

Thresholds = dict[Bucket, float | None]


@dataclass(slots=True)
class Candidate:
    """One possible pair of a sample."""

    sample: ScoredSample
    id: str
    """The sample's id; for a companion's answer with its label after it, as in ``000123~Image3``."""
    kind: Literal["own", "confusion"]
    rejected: str | None
    """None: there is no such answer, for the reason in `missing`."""
    chosen: ChosenText
    missing: str | None = None
    length_ratio: float | None = None
    edit_distance: float | None = None

    @property
    def bucket(self) -> Bucket:
        return self.sample.format, len(self.sample.regions)

    def dropped(self, rule: str, value: float | str | None) -> Dropped:
        format_, parts = self.bucket
        return Dropped(id=self.id, format=format_, parts=parts, rule=rule, value=value)

    def pair(self) -> PreferencePair:
        sample, own = self.sample, self.kind == "own"
        return PreferencePair(
            id=self.id,
            format=sample.format,
            images=sample.images,
            prompt=sample.prompt,
            chosen=self.chosen.text,
            chosen_ids=chosen_ids(sample, self.chosen),
            rejected=self.rejected or "",
            rejected_ids=sample.response_ids if own else None,
            scores=Scores(
                ratio=sample.attention.ratio,
                perplexity=sample.perplexity if own else None,
                length_ratio=self.length_ratio,
                edit_distance=self.edit_distance,
            ),
            target=sample.target,
            regions=sample.regions,
        )


Failure = tuple[str, float | str | None]
"""Rule and value that a candidate failed at."""


def candidates(sample: ScoredSample, settings: SelectSettings) -> Iterator[Candidate]:
    """The answers that `settings.rejected` allows: the model's own, companions', or both."""
    chosen = chosen_text(sample, settings)
    if settings.rejected != "confusion":
        yield Candidate(sample, sample.id, "own", sample.response, chosen)
    if settings.rejected != "own":
        yield from _confusions(sample, chosen, settings)


def _confusions(sample: ScoredSample, chosen: ChosenText, settings: SelectSettings) -> Iterator[Candidate]:
    if sample.confusions is None:
        yield Candidate(sample, f"{sample.id}~", "confusion", None, chosen, "scored without confusions")
        return
    answer = normalize_answer(chosen.text)
    different: dict[str, tuple[str, str]] = {}
    for index, text in enumerate(sample.confusions):
        if text is None or index == sample.target:
            continue
        normal = normalize_answer(text)
        if normal and normal != answer:
            different.setdefault(normal, (sample.regions[index].label, text))
    if settings.rejected == "both":
        different.pop(normalize_answer(sample.response), None)
    if not different:
        yield Candidate(sample, f"{sample.id}~", "confusion", None, chosen, "no companion answers otherwise")
        return
    ranked = sorted(different.values(), key=lambda item: stable_key(settings.seed, sample.id, item[0]))
    for label, text in ranked[: settings.confusions_per_sample]:
        yield Candidate(sample, f"{sample.id}~{label}", "confusion", text, chosen)


def stable_key(seed: int, *names: str) -> int:
    """64 random bits that depend on the seed and the names alone."""
    return seed_from(seed, *names, separator=b"\\0", order="big")


def unusable(candidate: Candidate, settings: SelectSettings) -> Failure | None:
    """Rules that come before the question whether the answer is right."""
    if candidate.rejected is None:
        return wrong_kind(candidate.sample, candidate.chosen, settings) or ("no_confusion", candidate.missing)
    return wrong_kind(candidate.sample, candidate.chosen, settings) or broken(candidate.chosen, candidate.rejected, settings)


def wrong_kind(sample: Glance, chosen: ChosenText, settings: SelectSettings) -> Failure | None:
    """Rules about the sample alone, whatever was answered."""
    if sample.format not in settings.formats:
        return "format", sample.format
    if chosen.missing is not None:
        return "no_chosen", chosen.missing
    if settings.max_answer_chars is not None and len(chosen.text) >= settings.max_answer_chars:
        return "answer_too_long", float(len(chosen.text))
    return None


def broken(chosen: ChosenText, rejected: str, settings: SelectSettings) -> Failure | None:
    """Whether one of the two texts is no answer at all."""
    if reason := degenerate(rejected, settings.image_tokens):
        return "degenerate", reason
    if reason := degenerate(chosen.text, settings.image_tokens):
        return "degenerate", f"{'own answer' if chosen.own else 'ground truth'}: {reason}"
    return None


def is_right(answer: str, text: str) -> bool:
    """Whether a text says the same as the answer that is taken for right."""
    return text == answer or normalize_answer(text) == normalize_answer(answer)


def unlikely_hallucination(candidate: Candidate, settings: SelectSettings, thresholds: Thresholds) -> Failure | None:
    """The rules about the model's own answering: where it looked, how sure it was. Companions' answers are exempt."""
    if candidate.kind != "own":
        return None
    sample = candidate.sample
    ratio, perplexity = sample.attention.ratio, sample.perplexity
    if settings.attention and ratio is None:
        return "unmeasured", sample.attention.reason or "no attention ratio"
    if settings.min_perplexity is not None and perplexity is None:
        return "unmeasured", "no perplexity"
    if settings.attention and ratio is not None:
        threshold = thresholds[candidate.bucket]
        if threshold is not None:
            elsewhere = looks_elsewhere(sample.format, ratio, threshold)
            if elsewhere == (settings.attention == "reversed"):
                return "attention", ratio
    if settings.min_perplexity is not None and perplexity is not None and perplexity <= settings.min_perplexity:
        return "perplexity", perplexity
    return None


def too_far_or_too_near(candidate: Candidate, settings: SelectSettings) -> Failure | None:
    """Post-selection on the two texts; notes both values in the candidate."""
    chosen, rejected = candidate.chosen.text, candidate.rejected or ""
    candidate.length_ratio = length_ratio(chosen, rejected)
    candidate.edit_distance = edit_distance(chosen, rejected)
    if settings.max_length_ratio is not None and candidate.length_ratio > settings.max_length_ratio:
        return "length_ratio", candidate.length_ratio
    if settings.min_edit_distance is not None and candidate.edit_distance < settings.min_edit_distance:
        return "edit_distance", candidate.edit_distance
    return None


def length_ratio(first: str, second: str) -> float:
    """Longer over shorter text in characters (>= 1); lengths under 16 count as 16.

    >>> length_ratio("Two", "There are two dogs and three cats")
    2.0625
    """
    lengths = max(len(first), SHORT), max(len(second), SHORT)
    return max(lengths) / min(lengths)


def edit_distance(first: str, second: str) -> float:
    """Levenshtein distance over the longer length, case aside: 0 equal, 1 nothing in common.

    >>> round(edit_distance("The color is red.", "The color is blue."), 2)
    0.22
    """
    return float(Levenshtein.normalized_distance(first.lower(), second.lower()))
