"""What a diagnosis says: records of what was found, the sentences about it and the settings that follow. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from mia_augment import FormatName, Readout, Record, Rows
from mia_augment.statistics import Auroc
from pydantic import Field

from mia_select.selection.calibration import ENOUGH

ROOM = 0.05
"""Fewer points than this lost against the picture alone, and there is little to mend."""
TELLS = 0.6
"""An area under the curve below this is little use for choosing answers."""
SURELY_NOT = 0.7
"""An interval that ends below this says that a readout is little use, not only that there were few answers."""
FEW = 50
"""With fewer samples than this nothing is said to be too small to matter."""
MATCHES = 0.2
"""With fewer answers than this equal to the ground truth, equality does not tell right from wrong."""

WORDED_OTHERWISE = 0.2
"""With more of the unequal answers than this likeliest under the asked picture alone, equality is a doubtful judge."""

ALONE = "alone"
"""The readout of no attention that needs a pass over each picture alone."""
SURENESS = "perplexity"
"""How sure the model is of its answer: no readout that scoring could be set to, but there without another pass."""
WITHOUT_ROWS = (ALONE, "consistency", SURENESS)
"""Readouts of no attention, so of no rows."""
LABEL_FREE: dict[str, dict[str, Any]] = {
    "score": {"layer": ALONE, "own_answer": True},
    "select": {"chosen": "own", "correct": "likely", "calibrate": {"by": "groups"}, "min_perplexity": None},
}
"""Where there is no ground truth, or equality with it tells nothing: the model's single-image view as judge and as teacher.
The FAQ and the recipe `own` say the same."""


class ReadoutScore(Record):
    """How well one way of reading attention tells wrong answers from right ones, within each format and number of images."""

    rows: Rows
    layer: Readout
    value_weighted: bool
    auroc: float
    low: float
    high: float
    samples: int
    probe: bool = False
    """A probe of the states behind this layer, which needs labels: a reference, nothing that scoring could be set to."""

    @property
    def name(self) -> str:
        """``layer 3, rows question, value-weighted``."""
        if self.probe:
            return f"probe of the state behind layer {self.layer} (needs labels)"
        if self.layer in WITHOUT_ROWS:
            return str(self.layer)
        layer = f"layer {self.layer}" if isinstance(self.layer, int) else self.layer
        if isinstance(layer, list):
            heads = [f"{each}.{head}" for each, head in heads_of(layer)]
            layer = f"heads {', '.join(heads)}" if heads else f"layers {', '.join(map(str, layer))}"
        return f"{layer}, {self.rows} rows{', value-weighted' if self.value_weighted else ''}"


def heads_of(layer: Readout) -> list[tuple[int, int]]:
    """The (layer, head) that a readout is the mean over; none: it reads no single heads."""
    return [(each[0], each[1]) for each in layer if not isinstance(each, int)] if isinstance(layer, list) else []


class BucketFindings(Record):
    """One format and number of images."""

    format: FormatName
    parts: int
    n: int
    right: int
    right_alone: int
    """Of the same questions, asked about the target's own picture alone."""
    told_another: int | None
    """Wrong answers that equal another picture's answer; None: the data do not say."""
    mean_ratio_right: float | None
    mean_ratio_wrong: float | None
    auroc: Auroc | None
    """Of the configured readout."""
    threshold: float | None
    right_passed: float | None
    """Share of the right answers that the threshold would take for wrong-looking."""
    wrong_passed: float | None
    inert: bool
    """The threshold treats right and wrong answers alike."""
    judged: bool = True
    """There are right and wrong answers enough, each with a ratio, to say that the threshold is any good."""


class Unequal(NamedTuple):
    """Answers that differ from the ground truth, as far as their likelihoods under each picture alone were measured."""

    measured: int = 0
    of_target: int = 0
    """Likelier under the asked picture alone than under all others together."""

    @property
    def doubtful(self) -> bool:
        """Whether many are no confusion of pictures: right in other words, or wrong about the picture itself."""
        return self.measured >= ENOUGH and self.of_target > WORDED_OTHERWISE * self.measured


NONE_UNEQUAL = Unequal()
"""Nothing is known of them."""


class Finding(Record):
    """One sentence for the user."""

    name: Literal["matching", "room", "confusion", "one_sided", "attention", "readout", "thresholds"]
    good: bool | None
    """None: cannot be told."""
    text: str


class Diagnosis(Record):
    """All that `mia diagnose` found."""

    model: str
    samples: int
    buckets: list[BucketFindings]
    configured: ReadoutScore | None
    """The readout of `score`; None: not measured, or right and wrong answers never meet in a bucket."""
    best: ReadoutScore | None
    """The readout that is best on one half of the samples, measured on the other half."""
    readouts: list[ReadoutScore]
    """All that were tried, on all samples, best first. The first one is flattered by being chosen: see `best`."""
    by_kind: list[ReadoutScore] = Field(default=[])
    """Of each kind (attention by layer, heads, rollout, gradient, alone, consistency, perplexity, probe) the one that is best
    on one half of the samples, measured on the other half."""
    findings: list[Finding]
    advice: dict[str, dict[str, Any]]
    """Settings to try in the pipeline.yaml."""


def findings(
    buckets: Sequence[BucketFindings],
    configured: ReadoutScore | None,
    best: ReadoutScore | None,
    one_sided: str | None,
    unequal: Unequal = NONE_UNEQUAL,
) -> list[Finding]:
    """The sentences, most important first.

    Args:
        one_sided: answers that are wrong far more often than right, in words.
        unequal: what is known of the answers that differ from the ground truth.
    """
    n = sum(bucket.n for bucket in buckets)
    right, alone = (sum(getattr(bucket, name) for bucket in buckets) for name in ("right", "right_alone"))
    if _unmatched(buckets):
        text = (
            f"only {alone} of {n} answers equal the ground truth even with the picture alone: free answers, where equality "
            "does not tell right from wrong. What to do about them stands in docs/faq.md, “My questions have long answers”"
        )
        return [Finding(name="matching", good=False, text=text), _thresholds(buckets)]
    lines = [_room(n, right, alone)]
    told = [bucket for bucket in buckets if bucket.told_another is not None]
    wrong = sum(bucket.n - bucket.right for bucket in told)
    if unequal.doubtful:
        lines.append(_otherwise(unequal))
    if wrong:
        another = sum(bucket.told_another or 0 for bucket in told)
        lines.append(
            Finding(
                name="confusion",
                good=None,
                text=f"{another} of {wrong} wrong answers are right about another of the pictures",
            )
        )
    if one_sided is not None:
        text = f"given when wrong far more often than missed: {one_sided}; rejecting these teaches the model to avoid the words"
        lines.append(Finding(name="one_sided", good=False, text=text))
    lines.append(_attention(configured, buckets))
    if best is not None and _tells_more(best, configured):
        text = f"{best.name} tells more: {best.auroc:.2f} [{best.low:.2f}, {best.high:.2f}] on samples it was not chosen on"
        lines.append(Finding(name="readout", good=best.low > 0.5, text=text))
    return [*lines, _thresholds(buckets)]


def _room(n: int, right: int, alone: int) -> Finding:
    """What several pictures cost. The interval takes both shares for independent, which is wider than a paired one."""
    lost = (alone - right) / n
    text = f"{alone / n:.0%} right with the picture alone, {right / n:.0%} among several: {100 * lost:.0f} points to win back"
    half = 1.96 * _spread(alone / n, n, right / n, n)
    if lost >= ROOM and lost - half > 0:
        return Finding(name="room", good=True, text=text)
    if lost < ROOM and n >= FEW:
        return Finding(name="room", good=False, text=f"{text}, so there is little to mend")
    between = f"{100 * (lost - half):.0f} to {100 * (lost + half):.0f} points"
    return Finding(name="room", good=None, text=f"{text}; whether that is so is not known from {n} samples ({between})")


def _spread(a: float, n: int, b: float, m: int) -> float:
    """Standard error of the difference of two shares."""
    return math.sqrt(a * (1 - a) / n + b * (1 - b) / m)


def _otherwise(unequal: Unequal) -> Finding:
    text = (
        f"{unequal.of_target} of {unequal.measured} answers that differ from the ground truth are likeliest under the "
        "asked picture alone all the same: right in other words, or wrong about the picture itself. All figures here take "
        "them for wrong"
    )
    return Finding(name="matching", good=False, text=text)


def _unmatched(buckets: Sequence[BucketFindings]) -> bool:
    """Whether equality with the ground truth does not tell right answers from wrong ones here: free answers."""
    return sum(bucket.right_alone for bucket in buckets) < MATCHES * sum(bucket.n for bucket in buckets)


def _tells_more(best: ReadoutScore, configured: ReadoutScore | None) -> bool:
    return configured is None or best.low > configured.auroc


def _read(buckets: Sequence[BucketFindings]) -> bool:
    """Whether the readout of `score` was among those measured."""
    return any(value is not None for bucket in buckets for value in (bucket.mean_ratio_right, bucket.mean_ratio_wrong))


def _attention(configured: ReadoutScore | None, buckets: Sequence[BucketFindings]) -> Finding:
    if configured is None and not _read(buckets):
        text = (
            "the readout that `score` is set to was not measured: `auto`, which chooses a layer when scoring, or one that "
            "cannot be read from this model"
        )
        return Finding(name="attention", good=None, text=text)
    if configured is None:
        text = "whether the ratio tells wrong from right is not known: they never meet in a format and number of images"
        return Finding(name="attention", good=None, text=text)
    told = f"AUROC {configured.auroc:.2f} [{configured.low:.2f}, {configured.high:.2f}] with {configured.name}"
    if configured.low <= 0.5 and configured.high > SURELY_NOT:
        text = f"whether low attention on the target tells wrong answers from right ones is not known ({told}; 0.5 is chance)"
        return Finding(name="attention", good=None, text=f"{text}: ask more samples (--samples)")
    if configured.low <= 0.5:
        text = f"low attention on the target does not tell wrong answers from right ones here ({told}; 0.5 is chance)"
    elif configured.auroc < TELLS:
        text = f"low attention on the target tells little about wrong answers ({told})"
    else:
        text = f"low attention on the target goes with wrong answers ({told})"
    return Finding(name="attention", good=configured.low > 0.5 and configured.auroc >= TELLS, text=text)


def _thresholds(buckets: Sequence[BucketFindings]) -> Finding:
    if not _read(buckets):
        return Finding(name="thresholds", good=None, text="what the thresholds decide is not known without the ratios")
    with_one = [bucket for bucket in buckets if bucket.threshold is not None]
    if not with_one:
        return Finding(name="thresholds", good=None, text="none of these formats and numbers of images has a threshold")
    inert = [bucket for bucket in with_one if bucket.inert]
    unknown = [bucket for bucket in with_one if not bucket.inert and not bucket.judged]
    others = [bucket for bucket in with_one if not bucket.inert and bucket.judged]
    helping = [bucket for bucket in others if _tells(bucket)]
    good = False if inert else True if len(helping) == len(with_one) else None
    parts = []
    if inert:
        of = "answers through, right or wrong" if all(bucket.judged for bucket in inert) else "answers through"
        parts.append(f"the thresholds are inert {_where(inert, with_one)}: they let nearly all or nearly none of the {of}")
    if helping:
        parts.append(f"the thresholds keep wrong answers rather than right ones {_where(helping, with_one)}")
    if blind := [bucket for bucket in others if bucket not in helping]:
        parts.append(f"the thresholds divide the answers, but not surely wrong ones from right ones, {_where(blind, with_one)}")
    if unknown:
        parts.append(f"not known {_where(unknown, with_one)}: that takes {ENOUGH} right and {ENOUGH} wrong answers")
    return Finding(name="thresholds", good=good, text="; ".join(parts))


def _tells(bucket: BucketFindings) -> bool:
    """Whether more of the wrong answers than of the right ones pass, by more than chance (95 %)."""
    wrong, right = bucket.wrong_passed, bucket.right_passed
    if wrong is None or right is None:
        return False
    return wrong - right > 1.96 * _spread(wrong, bucket.n - bucket.right, right, bucket.right)


def _where(some: Sequence[BucketFindings], of: Sequence[BucketFindings]) -> str:
    if len(some) == len(of):
        return "in every format and number of images"
    return f"in {len(some)} of {len(of)} ({', '.join(f'{bucket.format} of {bucket.parts}' for bucket in some)})"


def advice(
    buckets: Sequence[BucketFindings],
    configured: ReadoutScore | None,
    best: ReadoutScore | None,
    one_sided: str | None,
    *,
    label_free: bool = False,
    unequal: Unequal = NONE_UNEQUAL,
) -> dict[str, dict[str, Any]]:
    """Settings that follow from the findings; empty: keep what is set.

    Answers that equality does not judge are judged by the model's own likelihoods, if these can be measured (`label_free`);
    else nothing follows from them but where the thresholds are inert. What was not measured is no reason to turn the attention
    rule off.
    """
    if (_unmatched(buckets) or unequal.doubtful) and label_free:
        return {name: dict(settings) for name, settings in LABEL_FREE.items()}
    if _unmatched(buckets):
        return {"select": {"calibrate": "auto"}} if any(bucket.inert for bucket in buckets) else {}
    score: dict[str, Any] = {}
    select: dict[str, Any] = {}
    told = best is not None and best.low > 0.5
    if best is not None and told and _tells_more(best, configured):
        heads = [list(each) for each in heads_of(best.layer)]
        read = {"layer": "heads", "heads": heads} if heads else {"layer": best.layer}
        score = {**read, **({} if best.layer in WITHOUT_ROWS else {"rows": best.rows})}
        if best.value_weighted:
            score["value_weighted"] = True
    if any(bucket.inert for bucket in buckets):
        select = {"calibrate": "auto"}
    measured = [each for each in (best, configured) if each is not None]
    useless = measured and all(each.low <= 0.5 and each.high <= SURELY_NOT for each in measured)
    if useless and sum(bucket.n - bucket.right for bucket in buckets) >= ENOUGH:
        select = {"attention": False}
    if one_sided is not None:
        score["confusions"], select["rejected"] = True, "both"
    return {name: settings for name, settings in (("score", score), ("select", select)) if settings}
