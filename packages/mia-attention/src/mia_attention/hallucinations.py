"""Which kind of multi-image hallucination a response shows, by where its attention lay and what it says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from mia_augment import Box, ConfigError, FormatName, Readout, Record, Sample, ScoredSample, same_answer
from mia_augment.statistics import SpokenOf, likeliest_per_token, said_of_none_below, spoken_of

Kind = Literal["focused", "sequence_confusion", "element_interference", "neither"]
SCATTER = 0.95
"""Evenness from which attention counts as scattered: two parts at 63 : 37."""


class Analysis(Record):
    """Where one response's attention lay."""

    id: str
    format: FormatName
    parts: int
    target: int
    layer: str
    """As in `Attention.layer`; several as ``1+2``."""
    kind: Kind | None
    """`focused`: attention peaks on the target; `sequence_confusion`: on another part; `element_interference`: it is scattered
    over several parts. Of the readout `alone` these say what the response speaks of (`about`), and `neither`: of no part.
    None: nothing was measured, see `reason`."""
    shares: list[float]
    """Attention per visual token of each part over the sum of all parts; 1 / parts is chance."""
    evenness: float | None
    """Entropy of the shares over its maximum: 0, all on one part, to 1, all parts alike."""
    peak: int | None
    """The part with the largest share."""
    ratio: float | None
    correct: bool
    """Whether the response is the ground truth, but for case, punctuation and articles."""
    echoes: int | None
    """A wrong response that is another part's answer to this question: which part's."""
    reason: str | None = None
    about: SpokenOf | None = None
    """The part that the response speaks of, in whatever words, by its likelihood under each picture alone; `mixed` from
    several, or `neither`. None: not measured (another readout than `alone`)."""


class AnalysisGroup(Record):
    """Several responses together."""

    by: str
    key: str
    count: int
    correct: int
    focused: int
    sequence_confusion: int
    element_interference: int
    unmeasured: int
    echoes: int
    mean_ratio: float | None
    neither: int = 0
    """Of the readout `alone`: responses that speak of no part."""


class HallucinationReport(Record):
    """Analyses of single responses and their sums by format, number of images, position of the target and layer."""

    analyses: list[Analysis]
    groups: list[AnalysisGroup]

    def group(self, by: str, key: str) -> AnalysisGroup | None:
        return next((group for group in self.groups if (group.by, group.key) == (by, key)), None)


KEYS: dict[str, Callable[[Analysis], str]] = {
    "format": lambda analysis: analysis.format,
    "parts": lambda analysis: f"{analysis.format}/{analysis.parts}",
    "target": lambda analysis: f"{analysis.format}/{analysis.parts}/Image{analysis.target + 1}",
    "layer": lambda analysis: analysis.layer,
}


def analyze(scored: Iterable[ScoredSample], *, scatter: float = SCATTER) -> HallucinationReport:
    """Sort responses by kind of hallucination.

    Args:
        scored: samples with responses and attention.
        scatter: evenness from which attention counts as scattered, 0..1.

    Raises:
        ConfigError: `scatter` is out of range.
    """
    if not 0 < scatter <= 1:
        raise ConfigError(f"analyze: expected 0 < scatter <= 1, got {scatter}")
    samples = list(scored)
    floor = floor_of(samples)
    analyses = [analyze_one(sample, scatter, floor) for sample in samples]
    groups = []
    for by, key_of in KEYS.items():
        for key in dict.fromkeys(key_of(analysis) for analysis in analyses):
            groups.append(_group(by, key, [analysis for analysis in analyses if key_of(analysis) == key]))
    return HallucinationReport(analyses=analyses, groups=groups)


def floor_of(samples: Iterable[ScoredSample]) -> float | None:
    """Below which likelihood a response speaks of no picture, from all responses; see `said_of_none_below`."""
    best, own = [], []
    for sample in samples:
        logps = sample.attention.logp_alone
        if logps is not None and (likeliest := likeliest_per_token(logps)) is not None:
            best.append(likeliest)
        if sample.own_mean_logp is not None:
            own.append(sample.own_mean_logp)
    return said_of_none_below(best, own)


def analyze_one(sample: ScoredSample, scatter: float = SCATTER, floor: float | None = None) -> Analysis:
    """One response, see `analyze`; `floor` as `floor_of` gives it for all of them."""
    shares = part_shares(sample)
    alone = sample.attention.layer == "alone"
    about = spoken_of(shares, sample.target, sample.attention.logp_alone, floor) if alone else None
    even = evenness(shares) if len(shares) > 1 else None
    peak = max(range(len(shares)), key=shares.__getitem__) if shares else None
    correct = same_answer(sample.response, sample.answer)
    return Analysis(
        id=sample.id,
        format=sample.format,
        parts=sample.parts,
        target=sample.target,
        layer=_layer_name(sample.attention.layer),
        kind=kind_of_words(about, sample.target) if alone else kind_of(even, peak, sample.target, scatter),
        shares=shares,
        evenness=even,
        peak=peak,
        ratio=sample.attention.ratio,
        correct=correct,
        echoes=None if correct else echo(sample),
        reason=None if even is not None else sample.attention.reason or "no attention on any part",
        about=about,
    )


def kind_of(even: float | None, peak: int | None, target: int, scatter: float) -> Kind | None:
    """Scattered if the shares are even; else focused or confused by where they peak."""
    if even is None or peak is None:
        return None
    if even >= scatter:
        return "element_interference"
    return "focused" if peak == target else "sequence_confusion"


def kind_of_words(about: SpokenOf | None, target: int) -> Kind | None:
    """The kind of a response by what it speaks of; that attention scatters or peaks plays no part."""
    if about is None or about == "neither":
        return about
    if about == "mixed":
        return "element_interference"
    return "focused" if about == target else "sequence_confusion"


def part_shares(sample: ScoredSample) -> list[float]:
    """Attention per visual token of each part over the sum of all parts; empty where it was not measured.

    A part that holds another (the outer picture of a pic-in-pic) counts without it. Of the readout `alone`: each part's
    share of the response's likelihood, so that `peak` names the picture that the response speaks of.
    """
    masses, tokens = list(sample.attention.region_mass), list(sample.attention.region_tokens)
    if sample.attention.layer == "alone":  # shares of a likelihood, each part for itself
        return masses if len(masses) > 1 else []
    if not masses or len(masses) < 2:
        return []
    tokens = tokens or [1.0] * len(masses)
    for outer, inner in nested_regions(sample):
        masses[outer] = max(masses[outer] - sample.attention.region_mass[inner], 0.0)
        tokens[outer] = (
            max(tokens[outer] - sample.attention.region_tokens[inner], 0.0) if sample.attention.region_tokens else 1.0
        )
    densities = [mass / count if count > 0 else 0.0 for mass, count in zip(masses, tokens, strict=True)]
    total = sum(densities)
    return [density / total for density in densities] if total > 0 else []


def evenness(shares: Sequence[float]) -> float:
    """Entropy of shares that sum to 1, over log of their number.

    >>> evenness([0.5, 0.5]), evenness([1.0, 0.0])
    (1.0, 0.0)
    """
    return sum(-share * math.log(share) for share in shares if share > 0) / math.log(len(shares))


def echo(sample: ScoredSample) -> int | None:
    """The part whose answer to the same question the response is, by its own row or the model's answer about it alone."""
    known = [sample.source.answers, sample.confusions or []]
    for answers in known:
        for index, answer in enumerate(answers):
            if index != sample.target and answer is not None and same_answer(sample.response, answer):
                return index
    return None


def nested_regions(sample: Sample) -> list[tuple[int, int]]:
    """Pairs (outer, inner) of regions of one image of which one box holds the other."""
    pairs = []
    for i, outer in enumerate(sample.regions):
        for j, inner in enumerate(sample.regions):
            if i != j and outer.image == inner.image and outer.box and inner.box and _holds(outer.box, inner.box):
                pairs.append((i, j))
    return pairs


def _holds(outer: Box, inner: Box) -> bool:
    left, top, right, bottom = outer
    return outer != inner and left <= inner[0] and top <= inner[1] and right >= inner[2] and bottom >= inner[3]


def _group(by: str, key: str, analyses: Sequence[Analysis]) -> AnalysisGroup:
    kinds = Counter(analysis.kind for analysis in analyses)
    ratios = [analysis.ratio for analysis in analyses if analysis.ratio is not None]
    return AnalysisGroup(
        by=by,
        key=key,
        count=len(analyses),
        correct=sum(analysis.correct for analysis in analyses),
        focused=kinds["focused"],
        sequence_confusion=kinds["sequence_confusion"],
        element_interference=kinds["element_interference"],
        unmeasured=kinds[None],
        echoes=sum(analysis.echoes is not None for analysis in analyses),
        mean_ratio=sum(ratios) / len(ratios) if ratios else None,
        neither=kinds["neither"],
    )


def _layer_name(layer: Readout) -> str:
    """``3``, ``1+2``, or of heads ``3.0+3.2``."""
    several = layer if isinstance(layer, list) else [layer]
    return "+".join(str(each) if isinstance(each, (int, str)) else f"{each[0]}.{each[1]}" for each in several)
