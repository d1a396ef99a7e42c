"""How many candidates each rule let through, per format and number of images."""

from __future__ import annotations

from collections import Counter

from mia_augment import Bucket, FormatName, Record

from mia_select.rules.table import RULES
from mia_select.selection.calibration import BucketThreshold

ENOUGH_TO_WARN = 20
"""Candidates that must reach a rule before a share of them says anything."""


class RuleCount(Record):
    """How many candidates reached one rule, and how many it dropped and kept."""

    rule: str
    entered: int
    dropped: int
    kept: int


class BucketCount(Record):
    """Candidates and pairs of one format and number of images."""

    format: FormatName
    parts: int
    entered: int
    dropped: dict[str, int]
    """Rule -> how many; rules that dropped none are left out."""
    kept: int


class Selection(Record):
    """What `selection.json` holds."""

    samples: int
    """Scored samples read."""
    candidates: int
    """Possible pairs looked at: one per sample, or more with `rejected: both`. Those under the rule `joined` are in a pair."""
    pairs: int
    rules: list[RuleCount]
    """In the order in which candidates meet them."""
    buckets: list[BucketCount]
    thresholds: list[BucketThreshold]
    said_of_none_below: float | None = None
    """Mean log-prob per token under the likeliest picture below which `correct: likely` takes an answer for one about none of
    them; None: not asked, or too few of the model's answers about targets alone are known."""
    warnings: list[str]


class Funnel:
    """Counts outcomes; every candidate is either kept or dropped by exactly one rule."""

    def __init__(self) -> None:
        self.kept: Counter[Bucket] = Counter()
        self.dropped: Counter[tuple[Bucket, str]] = Counter()

    def keep(self, bucket: Bucket) -> None:
        self.kept[bucket] += 1

    def drop(self, bucket: Bucket, rule: str) -> None:
        self.dropped[bucket, rule] += 1

    @property
    def pairs(self) -> int:
        return self.kept.total()

    @property
    def candidates(self) -> int:
        return self.kept.total() + self.dropped.total()

    def rules(self) -> list[RuleCount]:
        """All rules in order; `entered` of one is `kept` of the one before."""
        per_rule: Counter[str] = Counter()
        for (_, name), count in self.dropped.items():
            per_rule[name] += count
        counts, entered = [], self.candidates
        for rule in RULES:
            kept = entered - per_rule[rule.name]
            counts.append(RuleCount(rule=rule.name, entered=entered, dropped=per_rule[rule.name], kept=kept))
            entered = kept
        return counts

    def buckets(self) -> list[BucketCount]:
        """All formats and numbers of images that occurred, sorted."""
        names = sorted(set(self.kept) | {bucket for bucket, _ in self.dropped})
        counts = []
        for bucket in names:
            dropped = {rule.name: count for rule in RULES if (count := self.dropped[bucket, rule.name])}
            kept = self.kept[bucket]
            entered = kept + sum(dropped.values())
            counts.append(BucketCount(format=bucket[0], parts=bucket[1], entered=entered, dropped=dropped, kept=kept))
        return counts

    def warnings(self) -> list[str]:
        """A warning for each rule that drops more than its `harsh` share of what reaches it."""
        return [
            f"the rule {rule.name!r} dropped {count.dropped} of the {count.entered} candidates that reached it{rule.hint}"
            for rule, count in zip(RULES, self.rules(), strict=True)
            if count.entered >= ENOUGH_TO_WARN and count.dropped > rule.harsh * count.entered
        ]

    def explain_drops(self) -> str:
        """Which rule dropped how many, in a line."""
        parts = [f"{count.rule} {count.dropped}" for count in self.rules() if count.dropped]
        return ", ".join(parts) or "none"
