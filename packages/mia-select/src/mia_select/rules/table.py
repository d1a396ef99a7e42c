"""Every rule of the selection, in the order in which a candidate meets them.

A candidate is counted under the first rule that it fails. The selector, the funnel, `dropped.jsonl` and the report read this
table. A new rule is a function in a file of this folder and an entry here; its limit is a field of `SelectSettings`, with null
for off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mia_select.rules.attention import attention, unmeasured
from mia_select.rules.candidate import Candidate, PairCandidate, RuleValue
from mia_select.rules.degenerate import degenerate_side
from mia_select.rules.duplicates import Duplicates, PairsPerImage
from mia_select.rules.edit_distance import too_similar
from mia_select.rules.length_ratio import too_unequal
from mia_select.rules.perplexity import too_sure
from mia_select.rules.wanted import (
    answer_too_long,
    correct,
    no_blocked,
    no_chosen,
    no_confusion,
    no_other_picture,
    unwanted_format,
)
from mia_select.settings import SelectSettings

Test: TypeAlias = Callable[[Candidate, SelectSettings], RuleValue | None]
"""The value at which a candidate fails; None: it passes."""


class Memory(Protocol):
    """What a rule remembers of the pairs made so far."""

    def refuses(self, candidate: PairCandidate) -> RuleValue | None: ...
    def note(self, candidate: PairCandidate) -> None: ...


@dataclass(frozen=True)
class Rule:
    """One rule. With neither `test` nor `memory` the selector decides, or `limits` when all pairs are known."""

    name: str
    keeps: str
    """What is true of the candidates that it keeps."""
    drops: str = ""
    """What is true of those that it drops, in positive words; by default ``not`` and what it keeps."""
    settings: tuple[str, ...] = ()
    """Fields of `SelectSettings` that it reads; their help says what they do."""
    test: Test | None = None
    """Decides about each candidate by itself."""
    memory: Callable[[SelectSettings], Memory] | None = None
    """Decides by the pairs made before."""
    harsh: float = 1.0
    """If it drops more than this share of what reaches it, a warning says so."""
    hint: str = ""
    """What to do then."""

    @property
    def dropped(self) -> str:
        """What is true of the candidates that it drops."""
        return self.drops or f"not {self.keeps}"


JOINED = "joined"
"""Counted under this are answers that are not lost but in the pair of another one, which the value names."""

_SHORT_ANSWERS = "; short answers of fixed wording have a low one even when wrong: consider a lower `min_perplexity`, or null"

RULES: tuple[Rule, ...] = (
    Rule("format", "of a wanted format", "of another format", ("formats",), unwanted_format),
    Rule("no_chosen", "chosen answer known", "without a chosen answer", ("chosen",), no_chosen),
    Rule("answer_too_long", "true answer short enough", "true answer too long", ("max_answer_chars",), answer_too_long),
    Rule(
        "no_confusion",
        "with another picture's answer",
        "without another picture's answer",
        ("rejected", "confusions_per_sample"),
        no_confusion,
    ),
    Rule(
        "no_blocked",
        "answered with pictures blocked",
        "without an answer while pictures are blocked",
        ("rejected",),
        no_blocked,
    ),
    Rule(
        "no_other_picture",
        "with another picture for the target's place",
        "without another picture for the target's place",
        ("other_picture",),
        no_other_picture,
    ),
    Rule("degenerate", "answer is no empty or broken text", "empty or broken answer", ("image_tokens",), degenerate_side),
    Rule("correct", "answered wrongly", "answered rightly", ("correct",), correct),
    Rule(
        "unmeasured",
        "attention measured",
        "attention could not be measured",
        ("attention", "min_perplexity"),
        unmeasured,
        harsh=0.5,
    ),
    Rule("attention", "looked elsewhere", "looked at the target", ("attention", "thresholds", "calibrate"), attention),
    Rule("perplexity", "unsure enough (perplexity)", "too sure", ("min_perplexity",), too_sure, harsh=0.5, hint=_SHORT_ANSWERS),
    Rule(
        "length_ratio",
        "of similar length",
        "too different in length",
        ("max_length_ratio",),
        too_unequal,
        harsh=0.5,
        hint="; consider a higher `max_length_ratio`, or null",
    ),
    Rule(
        "edit_distance",
        "different enough (edit distance)",
        "too similar",
        ("min_edit_distance",),
        too_similar,
        harsh=0.5,
        hint="; consider a lower `min_edit_distance`, or null",
    ),
    Rule("duplicate", "not seen before", "a repetition", (), memory=Duplicates),
    Rule("per_image", "within the limit per picture", "more than the limit per picture", ("per_image",), memory=PairsPerImage),
    Rule(JOINED, "first answers of their pairs (others join them)", "joined another answer's pair", ("rejected_per_prompt",)),
    Rule("balance", "after balancing", "left out for balance", ("balance", "seed")),
    Rule("max_pairs", "within the limit of pairs", "beyond the limit of pairs", ("max_pairs", "seed")),
)

BEFORE_CORRECT = RULES[: [rule.name for rule in RULES].index("correct")]
"""Rules about the texts alone: a candidate that fails one is never asked whether it is right."""


def rules_reading(setting: str) -> str:
    """The rules that a field of `SelectSettings` decides, for its help: ``Rule `length_ratio`.``"""
    found = [f"`{rule.name}`" for rule in RULES if setting in rule.settings]
    return f"Rule{'s' if len(found) > 1 else ''} {', '.join(found)}." if found else ""


RuleFailure: TypeAlias = tuple[str, RuleValue]
"""Name of the rule, and the value at which the candidate failed."""


def first_failure(candidate: Candidate, settings: SelectSettings, rules: Sequence[Rule] = RULES) -> RuleFailure | None:
    """The first of the rules that a candidate fails by itself."""
    for rule in rules:
        if rule.test is not None and (value := rule.test(candidate, settings)) is not None:
            return rule.name, value
    return None
