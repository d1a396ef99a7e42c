"""The answers of a scored sample that might become the rejected side of a pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mia_augment import FORMATS, ScoredSample, built_answers, normalize_answer

from mia_select.draws import stable_key
from mia_select.rules.candidate import ChosenText, PairCandidate
from mia_select.selection.chosen import chosen_text
from mia_select.selection.other_pictures import OtherPicture, OtherPictures
from mia_select.settings import SelectSettings


def candidates(sample: ScoredSample, settings: SelectSettings, others: OtherPictures) -> Iterator[PairCandidate]:
    """What `settings.rejected` allows: the model's own answer, companions', built, blocked ones, or two of these; or the chosen
    one under other pictures."""
    chosen = chosen_of(sample, settings)
    other = OtherPicture(None)
    if settings.other_picture or settings.rejected == "image":
        other = others.of(sample, chosen.text)
    if settings.rejected == "image":
        yield _same_answer(sample, chosen, other)
        return
    for candidate in _answers(sample, chosen, settings):
        candidate.other_images = other.images
        yield candidate


def _answers(sample: ScoredSample, chosen: ChosenText, settings: SelectSettings) -> Iterator[PairCandidate]:
    if settings.rejects_responses:
        yield own_answer(sample, chosen)
    if settings.rejected in ("confusion", "both"):
        yield from _confusions(sample, chosen, settings)
    if settings.rejected in ("built", "own_and_built"):
        texts = [(built.kind, built.text) for built in built_answers(sample)]
        yield from _others(sample, chosen, settings, texts, "no wrong answer to build: the others are unknown or the same")
    if settings.rejected == "blocked":
        yield _blocked(sample, chosen)


def chosen_of(sample: ScoredSample, settings: SelectSettings) -> ChosenText:
    """What `settings.chosen` takes for the right answer to a sample, with the tokens of the model's own words."""
    chosen = chosen_text(sample.answer, sample.own_answer, settings, sample.response)
    ids = sample.response_ids if settings.chosen.startswith("response") else sample.own_answer_ids
    return chosen._replace(ids=ids) if chosen.own else chosen


def _same_answer(sample: ScoredSample, chosen: ChosenText, other: OtherPicture) -> PairCandidate:
    return PairCandidate(
        format=sample.format,
        parts=len(sample.regions),
        chosen=chosen,
        rejected=chosen.text,
        own=False,
        missing=other.missing,
        contrast="pictures",
        sample=sample,
        id=sample.id,
        other_images=other.images,
    )


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
        about_several = FORMATS[sample.format].shared is not None
        why = "a question about several pictures cannot be asked of one" if about_several else "scored without confusions"
        yield _companion_answer(sample, chosen, "", None, why)
        return
    said = [(sample.regions[index].label, text) for index, text in enumerate(sample.confusions) if index != sample.target]
    yield from _others(sample, chosen, settings, said, "no companion answers otherwise")


def _others(
    sample: ScoredSample,
    chosen: ChosenText,
    settings: SelectSettings,
    said: Iterable[tuple[str, str | None]],
    missing: str,
) -> Iterator[PairCandidate]:
    """Of answers with their labels, those that differ from the chosen one and from each other, drawn at random."""
    answer = normalize_answer(chosen.text)
    different: dict[str, tuple[str, str]] = {}
    for label, text in said:
        normal = normalize_answer(text or "")
        if text and normal and normal != answer:
            different.setdefault(normal, (label, text))
    if settings.rejected in ("both", "own_and_built"):
        different.pop(normalize_answer(sample.response), None)
    if not different:
        yield _companion_answer(sample, chosen, "", None, missing)
        return
    ranked = sorted(different.values(), key=lambda item: stable_key(settings.seed, sample.id, item[0]))
    for label, text in ranked[: settings.confusions_per_sample]:
        yield _companion_answer(sample, chosen, label, text)


def _blocked(sample: ScoredSample, chosen: ChosenText) -> PairCandidate:
    """The model's answer while the pictures do not see each other."""
    missing = None
    if sample.blocked_answer is None:
        missing = "a single picture: nothing to block" if len(sample.images) < 2 else "scored without blocked_answer"
    return PairCandidate(
        format=sample.format,
        parts=len(sample.regions),
        chosen=chosen,
        rejected=sample.blocked_answer,
        own=False,
        blocked=True,
        missing=missing,
        sample=sample,
        id=f"{sample.id}~blocked",
    )


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
