"""An answer that might become the rejected side of a pair, as the rules see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from mia_augment import Bucket, Dropped, FormatName, LogpAlone, PreferencePair, RejectedAnswer, ScoredSample, Scores

RuleValue: TypeAlias = float | str
"""What a candidate failed at, as `dropped.jsonl` has it: a number, or the reason in words."""


class ChosenText(NamedTuple):
    """The text to be preferred, if there is one."""

    text: str
    own: bool = False
    """Whether it is in the model's own words."""
    ids: list[int] | None = None
    """The tokens that it emitted for it."""
    missing: str | None = None
    """Why there is none."""


@dataclass(slots=True, kw_only=True)
class Candidate:
    """Everything that a rule sees when it decides about one candidate by itself."""

    format: FormatName
    parts: int
    chosen: ChosenText
    rejected: str | None
    """None: there is no such answer, for the reason in `missing`."""
    own: bool = True
    """The model's answer to the sample; False: its answer about a companion alone or with pictures blocked, or a built one."""
    blocked: bool = False
    """The model's answer while the pictures do not see each other."""
    missing: str | None = None
    contrast: Literal["answers", "pictures"] = "answers"
    """pictures: `rejected` is the chosen answer itself, under other pictures."""
    ratio: float | None = None
    """Attention on the target (or its share of the likelihood), of an own answer."""
    layer: object = None
    """From which readout the ratio is."""
    target: int = 0
    """The part asked about."""
    logp_alone: LogpAlone | None = None
    """How likely `rejected` is under each picture alone; None: not measured."""
    own_mean_logp: float | None = None
    """Of the answer about the target alone, per token."""
    unmeasured: str | None = None
    """Why there is no ratio."""
    perplexity: float | None = None
    threshold: float | None = None
    """Of the attention rule in this format and number of images; None: it has none."""
    right: bool | None = None
    """Whether `rejected` says the same as `chosen`; None: no rule has asked yet."""
    length_ratio: float | None = None
    edit_distance: float | None = None

    @property
    def bucket(self) -> Bucket:
        return self.format, self.parts


@dataclass(slots=True, kw_only=True)
class PairCandidate(Candidate):
    """A candidate with its sample, from which a pair can be made."""

    sample: ScoredSample
    id: str
    """The sample's id; for a companion's or a built answer with its label after it: ``000123~Image3``, ``000123~swapped``."""
    other_images: list[str] | None = None
    """The sample's pictures with another one in the target's place."""
    joins: str | None = None
    """Id of the pair that the answer joins; None: it starts one."""

    @property
    def emitted(self) -> list[int] | None:
        """The tokens of the rejected answer, where the model gave it to this prompt."""
        return self.sample.response_ids if self.own else self.sample.blocked_answer_ids if self.blocked else None

    def dropped(self, rule: str, value: RuleValue | None) -> Dropped:
        return Dropped(id=self.id, format=self.format, parts=self.parts, rule=rule, value=value)

    def pair(self, more: Sequence[PairCandidate] = ()) -> PreferencePair:
        """The pair, with the answers that join it."""
        sample = self.sample
        return PreferencePair(
            id=self.id,
            format=sample.format,
            images=sample.images,
            prompt=sample.prompt,
            chosen=self.chosen.text,
            chosen_ids=self.chosen.ids,
            rejected=self.rejected or "",
            rejected_ids=self.emitted,
            more_rejected=[RejectedAnswer(text=other.rejected or "", ids=other.emitted) for other in more],
            rejected_images=self.other_images,
            scores=Scores(
                ratio=sample.attention.ratio,
                perplexity=self.perplexity,
                length_ratio=self.length_ratio,
                edit_distance=self.edit_distance,
            ),
            target=sample.target,
            regions=sample.regions,
        )
