"""The answers of a scored sample that might become the rejected side of a pair."""

from __future__ import annotations

from collections.abc import Iterator

from mia_augment import ScoredSample, normalize_answer

from mia_select.draws import stable_key
from mia_select.rules.candidate import ChosenText, PairCandidate
from mia_select.selection.chosen import chosen_text
from mia_select.settings import SelectSettings


def candidates(sample: ScoredSample, settings: SelectSettings) -> Iterator[PairCandidate]:
    """The answers that `settings.rejected` allows: the model's own, companions', or both."""
    chosen = chosen_text(sample.answer, sample.own_answer, settings)
    if settings.rejected != "confusion":
        yield own_answer(sample, chosen)
    if settings.rejected != "own":
        yield from _confusions(sample, chosen, settings)


def own_answer(sample: ScoredSample, chosen: ChosenText) -> PairCandidate:
    """The model's own answer to a sample."""
    return PairCandidate(
        format=sample.format,
        parts=len(sample.regions),
        chosen=chosen,
        rejected=sample.response,
        ratio=sample.attention.ratio,
        layer=sample.attention.layer,
        target=sample.target,
        logp_alone=sample.attention.logp_alone,
        own_mean_logp=sample.own_mean_logp,
        unmeasured=sample.attention.reason,
        perplexity=sample.perplexity,
        sample=sample,
        id=sample.id,
    )


def _confusions(sample: ScoredSample, chosen: ChosenText, settings: SelectSettings) -> Iterator[PairCandidate]:
    if sample.confusions is None:
        yield _companion_answer(sample, chosen, "", None, "scored without confusions")
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
        yield _companion_answer(sample, chosen, "", None, "no companion answers otherwise")
        return
    ranked = sorted(different.values(), key=lambda item: stable_key(settings.seed, sample.id, item[0]))
    for label, text in ranked[: settings.confusions_per_sample]:
        yield _companion_answer(sample, chosen, label, text)


def _companion_answer(
    sample: ScoredSample, chosen: ChosenText, label: str, text: str | None, missing: str | None = None
) -> PairCandidate:
    return PairCandidate(
        format=sample.format,
        parts=len(sample.regions),
        chosen=chosen,
        rejected=text,
        own=False,
        missing=missing,
        sample=sample,
        id=f"{sample.id}~{label}",
    )
