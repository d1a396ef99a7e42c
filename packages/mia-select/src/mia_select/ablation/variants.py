"""Does each part of the method help *this* model? Variants of the selection with as many pairs each.

Pure functions: from scored samples to lists of pairs. Training and answering are somebody else's (`mia ablate`), the table is
`mia_select.evaluation.comparison`'s.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mia_augment import FORMATS, PreferencePair, Readout, ScoredSample, same_answer

from mia_select.draws import stable_key
from mia_select.selection.selector import Selector
from mia_select.settings import SelectSettings

REFERENCE = "full"
"""The variant that the others are compared with."""
LEAST = 50
"""With fewer pairs than this a variant tells nothing and is left out."""
SHARE = 0.75
"""Unless told otherwise, an arm has this share of the pairs there are: every seed then draws other ones."""


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
    readout: Readout | None = None
    """Measures the answers, for the rules to go by; None: what the run is set to."""


_LABELLED = {"chosen": "ground_truth", "correct": "equal"}
_LABEL_FREE = {"chosen": "own", "correct": "equal"}

VARIANTS: tuple[Variant, ...] = (
    Variant(REFERENCE, "the whole method"),
    Variant("no_attention", "no attention rule", select={"attention": False}),
    Variant("reversed_attention", "answers that looked at the target", select={"attention": "reversed"}),
    Variant("random_rejected", "rejected: an answer to another sample", rejected="random"),
    Variant("confusion", "rejected: the answer about a companion", select={"rejected": "confusion"}),
    Variant("own_and_confusion", "rejected: its own and the one about a companion", select={"rejected": "both"}),
    Variant(
        "no_post_selection",
        "no post-selection",
        select={"min_perplexity": None, "max_length_ratio": None, "min_edit_distance": None},
    ),
    *(Variant(f"{name}_only", f"{row.plural} only", select={"formats": [name]}) for name, row in FORMATS.items() if row.paper),
    Variant("nll_only", "NLL on the chosen answers only", train={"loss": "sigmoid", "dpo_alpha": 0.0, "gamma": 1.0}),
    Variant("labelled", "labelled: ground truths are chosen and tell what is wrong", select=_LABELLED),
    Variant(
        "label_free",
        "label-free, by the likelihood under each picture alone",
        select={"chosen": "own", "correct": "likely", "attention": True, "calibrate": {"by": "groups"}},
        readout="alone",
    ),
    Variant("label_free_attention", "label-free, by attention", select={**_LABEL_FREE, "attention": True}),
    Variant("label_free_no_rule", "label-free, no rule", select={**_LABEL_FREE, "attention": False}),
)
"""The label-free ones look at no ground truth: the model's answer about the target alone is chosen, and what differs from it,
or is unlikely given the target alone, counts as wrong."""


@dataclass(frozen=True)
class Pool:
    """All pairs that a variant's selection gives, from which arms are drawn."""

    variant: Variant
    pairs: list[PreferencePair]
    dropped: str
    """Which rule dropped how many."""
    responses: Mapping[str, Sequence[str]]
    """Format -> the model's answers, for `rejected: random`; else empty."""


@dataclass(frozen=True)
class Arm:
    """A variant with its pairs for one seed, or why it has none."""

    variant: Variant
    available: int
    """Pairs that its selection could give."""
    pairs: list[PreferencePair]
    """Empty if left out."""
    compared_with: str | None = None
    """Arm with as many pairs that it is to be compared with; None: it is one itself."""
    same_as: str | None = None
    """An arm before it with the very same pairs and training: one result serves both."""
    left_out: str | None = None
    """Why this variant cannot be compared."""


def pool(scored: Iterable[ScoredSample], settings: SelectSettings, variant: Variant) -> Pool:
    """What a variant's selection makes of the samples, without a limit on pairs: that is drawn later, the same way for all.

    Args:
        scored: samples that can be iterated repeatedly (a list, or `mia_select.stage.Samples`).
        settings: what all variants start from.

    Raises:
        ValueError: `scored` can be iterated only once.
    """
    if iter(scored) is scored:
        raise ValueError("expected samples that can be iterated repeatedly (a list), got an iterator")
    changed = {**settings.model_dump(), **variant.select, "max_pairs": None}
    selector = Selector(SelectSettings.model_validate(changed))
    pairs = [record for record in selector.run(scored) if isinstance(record, PreferencePair)]
    responses: dict[str, list[str]] = {}
    if variant.rejected == "random":
        for sample in scored:
            if sample.response.strip():
                responses.setdefault(sample.format, []).append(sample.response)
    return Pool(variant, pairs, selector.funnel.explain_drops(), responses)


def common_size(pools: Sequence[Pool], pairs: int | None = None) -> int:
    """Pairs of each arm: `pairs`, or by default three quarters of what the smallest of the large variants gives.

    Large are those with at least half of the whole method's pairs; variants of one format don't count.

    Args:
        pools: the reference's first.

    Raises:
        ValueError: the whole method gives fewer than `pairs`, or too few to tell anything.
    """
    reference = pools[0]
    available = len(reference.pairs)
    need = LEAST if pairs is None else pairs
    if available < need:
        raise ValueError(
            f"{reference.variant.name}: its selection gives {available} pairs, {need} are needed (dropped: {reference.dropped})"
        )
    sizes = [len(entry.pairs) for entry in pools if "formats" not in entry.variant.select]
    return math.ceil(SHARE * min(size for size in sizes if 2 * size >= available)) if pairs is None else pairs


def needed(entry: Pool, scored: int, size: float) -> int | None:
    """How many samples would have to be scored for `size` pairs, at the rate at which these gave some; None: not known.

    Args:
        scored: samples of the variant's formats among those the pool was made from.
    """
    return round(size * scored / len(entry.pairs)) + 1 if entry.pairs else None


def arms(pools: Sequence[Pool], size: int, *, least: int = LEAST, seed: int = 0) -> list[Arm]:
    """The pairs of every variant for one seed, drawn at random: `size` of each.

    A variant that gives fewer, but at least `least`, gets all it has, and a control besides: the whole method with as many
    pairs (`full_180`). One that gives fewer still is left out, with the reason.

    Args:
        pools: the reference's first.
        seed: decides the draw; use it as the training's seed too.
    """
    reference, least = pools[0], min(least, size)
    made: list[Arm] = []
    for entry in pools:
        count = min(size, len(entry.pairs))
        if count < least:
            reason = f"its selection gives {count} pairs, {least} are needed (dropped: {entry.dropped})"
            made.append(Arm(entry.variant, len(entry.pairs), [], left_out=reason))
            continue
        control = None if entry is reference else _control(count, size)
        if control is not None and control not in {arm.variant.name for arm in made}:
            variant = Variant(control, f"{reference.variant.title}, {count} pairs only")
            made.append(Arm(variant, len(reference.pairs), draw(reference.pairs, count, seed), REFERENCE))
        made.append(_drawn(entry, count, control, seed))
    return _without_repetition(made)


def draw(pairs: Sequence[PreferencePair], size: int, seed: int) -> list[PreferencePair]:
    """`size` pairs at random, in their order; which ones depends on seed and ids alone."""
    chosen = sorted(pairs, key=lambda pair: stable_key(seed, pair.id))[:size]
    names = {pair.id for pair in chosen}
    return [pair for pair in pairs if pair.id in names]


def _control(count: int, size: int) -> str:
    return REFERENCE if count == size else f"{REFERENCE}_{count}"


def _drawn(entry: Pool, count: int, control: str | None, seed: int) -> Arm:
    pairs: list[PreferencePair] = draw(entry.pairs, count, seed)
    if entry.variant.rejected == "random":
        replaced = [_random_rejected(pair, entry.responses.get(pair.format, []), seed) for pair in pairs]
        pairs = [pair for pair in replaced if pair is not None]
        if missing := len(replaced) - len(pairs):
            reason = f"for {missing} pairs every drawn answer equals theirs"
            return Arm(entry.variant, len(entry.pairs), [], left_out=reason)
    return Arm(entry.variant, len(entry.pairs), pairs, control)


def _random_rejected(pair: PreferencePair, pool: Sequence[str], seed: int, attempts: int = 100) -> PreferencePair | None:
    """The pair with an answer to another sample as the rejected one, equal to neither of its own; None: none was found."""
    generator = random.Random(stable_key(seed, pair.id, "random rejected"))
    for _ in range(attempts if pool else 0):
        response = generator.choice(pool)
        if not same_answer(response, pair.chosen) and not same_answer(response, pair.rejected):
            return pair.model_copy(update={"rejected": response, "rejected_ids": None, "more_rejected": []})
    return None


def _without_repetition(made: Sequence[Arm]) -> list[Arm]:
    """Arms with the pairs and training of an earlier one point at that."""
    result: list[Arm] = []
    for arm in made:
        twins = (
            other
            for other in result
            if arm.pairs and other.same_as is None and other.variant.train == arm.variant.train and other.pairs == arm.pairs
        )
        twin = next(twins, None)
        same_as = twin.variant.name if twin else None
        result.append(Arm(arm.variant, arm.available, arm.pairs, arm.compared_with, same_as, arm.left_out))
    return result
