"""How many candidates each rule let through, per format and number of images."""

from __future__ import annotations

from collections import Counter

from mia_augment import Bucket, FormatName, Record

from mia_select.rules.calibration import BucketThreshold
from mia_select.selection.candidates import RULES

HARSH = {"unmeasured": 0.5, "perplexity": 0.5, "length_ratio": 0.5, "edit_distance": 0.5}
"""A rule of post-selection that drops more than this share of what reaches it is pointed out."""
HINTS = {
    "perplexity": "; short answers of fixed wording have a low one even when wrong: consider a lower `min_perplexity`, or null",
    "length_ratio": "; consider a higher `max_length_ratio`, or null",
    "edit_distance": "; consider a lower `min_edit_distance`, or null",
}
ENOUGH = 20


class RuleCount(Record):
    """What one rule did."""

    rule: str
    entered: int
    dropped: int
    kept: int


class BucketCount(Record):
    """What became of one format and number of images."""

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
    """Possible pairs looked at: one per sample, or more with `rejected: both`."""
    pairs: int
    rules: list[RuleCount]
    """In the order in which candidates meet them."""
    buckets: list[BucketCount]
    thresholds: list[BucketThreshold]
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
        for (_, rule), count in self.dropped.items():
            per_rule[rule] += count
        counts, entered = [], self.candidates
        for rule in RULES:
            kept = entered - per_rule[rule]
            counts.append(RuleCount(rule=rule, entered=entered, dropped=per_rule[rule], kept=kept))
            entered = kept
        return counts

    def buckets(self) -> list[BucketCount]:
        """All formats and numbers of images that occurred, sorted."""
        names = sorted(set(self.kept) | {bucket for bucket, _ in self.dropped})
        counts = []
        for bucket in names:
            dropped = {rule: count for rule in RULES if (count := self.dropped[bucket, rule])}
            kept = self.kept[bucket]
            entered = kept + sum(dropped.values())
            counts.append(BucketCount(format=bucket[0], parts=bucket[1], entered=entered, dropped=dropped, kept=kept))
        return counts

    def warnings(self) -> list[str]:
        """Rules of taste that take nearly everything which reaches them."""
        return [
            f"the rule {count.rule!r} dropped {count.dropped} of the {count.entered} candidates that reached it"
            + HINTS.get(count.rule, "")
            for count in self.rules()
            if count.entered >= ENOUGH and count.dropped > HARSH.get(count.rule, 1.0) * count.entered
        ]

    def explain_drops(self) -> str:
        """Which rule dropped how many, in a line."""
        parts = [f"{count.rule} {count.dropped}" for count in self.rules() if count.dropped]
        return ", ".join(parts) or "none"
