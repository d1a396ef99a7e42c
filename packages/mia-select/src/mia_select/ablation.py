"""Does each part of the method help *this* model? Variants of the selection with as many pairs each, and their comparison.

Pure functions: from scored samples to lists of pairs, and from the predictions of the trained models to a table. Training and
answering are somebody else's (`mia ablate`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mia_augment.records import PreferencePair, ScoredSample
from mia_augment.text import same_answer

from mia_select.candidates import stable_key
from mia_select.selection import Selector
from mia_select.settings import SelectSettings


@dataclass(frozen=True)
class Variant:
    """One way to choose or to use pairs."""

    name: str
    title: str
    """For the table."""
    select: Mapping[str, Any] = field(default_factory=dict)
    """What differs in `SelectSettings`."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """What differs in the trainer's settings."""
    rejected: Literal["selected", "random"] = "selected"
    """`random`: the rejected answers are those the model gave to other samples of the same format."""


VARIANTS: tuple[Variant, ...] = (
    Variant("full", "the whole method"),
    Variant("no_attention", "no attention rule", select={"attention": False}),
    Variant("random_rejected", "rejected: an answer to another sample", rejected="random"),
    Variant("confusion", "rejected: the answer about a companion", select={"rejected": "confusion"}),
    Variant(
        "no_post_selection",
        "no post-selection",
        select={"min_perplexity": None, "max_length_ratio": None, "min_edit_distance": None},
    ),
    Variant("sequence_only", "sequences only", select={"formats": ["sequence"]}),
    Variant("grid_only", "grids only", select={"formats": ["grid"]}),
    Variant("pic_in_pic_only", "pic-in-pic only", select={"formats": ["pic_in_pic"]}),
    Variant("nll_only", "NLL on the chosen answers only", train={"dpo_alpha": 0.0, "gamma": 1.0}),
)


@dataclass(frozen=True)
class Arm:
    """A variant with its pairs, or why it has none."""

    variant: Variant
    available: int
    """Pairs that its selection could give."""
    pairs: list[PreferencePair]
    """As many as every other arm has; empty if left out."""
    left_out: str | None = None
    """Why this variant cannot be compared."""


def arms(
    scored: Iterable[ScoredSample],
    settings: SelectSettings | None = None,
    *,
    variants: Sequence[Variant] = VARIANTS,
    pairs: int | None = None,
    least: int = 50,
    seed: int = 0,
) -> list[Arm]:
    """The pairs of every variant: the same number for all, drawn at random.

    Args:
        scored: samples that can be iterated repeatedly (a list, or `mia_select.stage.Samples`).
        settings: what all variants start from.
        variants: which to compare.
        pairs: how many for each arm; by default as many as the smallest arm with at least `least` has. A variant that has fewer
            is left out, with the reason.
        least: fewest pairs with which a variant still is compared when `pairs` is not given.
        seed: decides the draw; use it as the training's seed too.

    Raises:
        ValueError: `scored` can be iterated only once.
    """
    settings = settings or SelectSettings()
    if iter(scored) is scored:
        raise ValueError("expected samples that can be iterated repeatedly (a list), got an iterator")
    found = {variant.name: _select(scored, _settings(settings, variant, seed)) for variant in variants}
    enough = [len(selected) for selected, _ in found.values() if len(selected) >= least]
    size = pairs if pairs is not None else min(enough, default=0)
    result = []
    for variant in variants:
        selected, dropped = found[variant.name]
        if size == 0 or len(selected) < size:
            need = size or least
            reason = f"its selection gives {len(selected)} pairs, {need} are needed (dropped: {dropped})"
            result.append(Arm(variant, len(selected), [], reason))
            continue
        drawn = draw(selected, size, seed)
        result.append(_with_rejected(Arm(variant, len(selected), drawn), scored, seed))
    return result


def draw(pairs: Sequence[PreferencePair], size: int, seed: int) -> list[PreferencePair]:
    """`size` pairs at random, in their order; which ones depends on seed and ids alone."""
    chosen = sorted(pairs, key=lambda pair: stable_key(seed, pair.id))[:size]
    names = {pair.id for pair in chosen}
    return [pair for pair in pairs if pair.id in names]


def with_random_rejected(
    pairs: Sequence[PreferencePair], scored: Iterable[ScoredSample], seed: int
) -> list[PreferencePair | None]:
    """The pairs with a rejected answer that the model gave to another sample of the same format, drawn at random.

    It differs from the chosen answer after normalising; None where no such answer was found.
    """
    pool: dict[str, list[str]] = {}
    for sample in scored:
        if sample.response.strip():
            pool.setdefault(sample.format, []).append(sample.response)
    return [_random_rejected(pair, pool.get(pair.format, []), seed) for pair in pairs]


def _random_rejected(pair: PreferencePair, pool: Sequence[str], seed: int, attempts: int = 100) -> PreferencePair | None:
    generator = random.Random(stable_key(seed, pair.id, "random rejected"))
    for _ in range(attempts if pool else 0):
        response = generator.choice(pool)
        if not same_answer(response, pair.chosen) and not same_answer(response, pair.rejected):
            return pair.model_copy(update={"rejected": response})
    return None


def _with_rejected(arm: Arm, scored: Iterable[ScoredSample], seed: int) -> Arm:
    if arm.variant.rejected == "selected":
        return arm
    replaced = with_random_rejected(arm.pairs, scored, seed)
    pairs = [pair for pair in replaced if pair is not None]
    if len(pairs) < len(replaced):
        missing = len(replaced) - len(pairs)
        return Arm(arm.variant, arm.available, [], f"for {missing} pairs every drawn answer equals theirs")
    return Arm(arm.variant, arm.available, pairs)


def _settings(settings: SelectSettings, variant: Variant, seed: int) -> SelectSettings:
    """The variant's settings without a limit on pairs: that is drawn afterwards, the same way for all."""
    changed = {**settings.model_dump(), **variant.select, "max_pairs": None, "seed": seed}
    return SelectSettings.model_validate(changed)


def _select(scored: Iterable[ScoredSample], settings: SelectSettings) -> tuple[list[PreferencePair], str]:
    """The pairs, and which rule dropped how many."""
    selector = Selector(settings)
    pairs = [record for record in selector.run(scored) if isinstance(record, PreferencePair)]
    return pairs, selector.funnel.explain_drops()
