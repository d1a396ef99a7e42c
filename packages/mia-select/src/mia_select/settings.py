"""Settings of the selection. Every default is the paper's, or says why it is what it is where the paper gives no number."""

from __future__ import annotations

from typing import Literal, Self

from mia_augment import FORMATS, FormatName, Settings, per_format
from pydantic import Field, field_validator, model_validator

ADVISED: dict[str, object] = {"calibrate": "auto", "min_perplexity": None}
"""What to start from with a model other than LLaVA-1.5, or with short answers: `SelectSettings.model_validate(ADVISED)`."""

BalanceKey = Literal["format", "parts", "target"]


_TABLES = {
    name: (
        dict[int, float],
        Field(default=dict(row.thresholds), description=f"Of {row.plural}: images -> threshold."),
    )
    for name, row in FORMATS.items()
    if row.thresholds
}


class Thresholds(per_format(Settings, _TABLES)):  # type: ignore[misc]
    """Largest share of attention on the target with which an answer counts as looking elsewhere.

    One value per number of images, or one number for all. A number that is missing is interpolated linearly between its
    neighbours in the table (grid 5: 0.45); beyond the table its nearest entry holds. A sequence is kept at the threshold
    (<=), the other formats only below it (<), as in the paper's code.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _one_for_all(cls, value: object) -> object:
        return {1: value} if isinstance(value, int | float) else value

    @field_validator("*")
    @classmethod
    def _in_range(cls, value: dict[int, float]) -> dict[int, float]:
        if not value:
            raise ValueError("expected at least one number of images with its threshold, got none")
        for parts, threshold in value.items():
            if parts < 1 or not 0 <= threshold <= 1:
                raise ValueError(f"expected a threshold from 0 to 1 for 1 or more images, got {threshold} for {parts}")
        return value


class Calibrate(Settings):
    """Thresholds from the data instead of a table, for each format and number of images by itself."""

    by: Literal["keep", "auroc", "groups"] = "keep"
    """`keep`: keep a wanted share of the wrong answers, those with the lowest ratio.
    `auroc`: the cut that best tells wrong answers from right ones (Youden's J).
    `groups`: the cut between two groups of ratios, for `score.layer: alone`; needs no ground truth."""
    keep: float = Field(default=0.5, gt=0, le=1)
    """Share of the wrong answers that the attention rule shall keep (`by: keep`)."""
    min_samples: int = Field(default=20, ge=1)
    """Where fewer samples than this are wrong (or, for `auroc`, right), the table's threshold stays."""


class SelectSettings(Settings):
    """Which answers of the model become the rejected side of a pair."""

    formats: list[FormatName] = Field(default=[name for name, row in FORMATS.items() if row.paper])
    """Formats to take pairs from; by default the paper's three."""
    attention: bool | Literal["reversed"] = True
    """Keep only answers given while looking away from the target; false: every wrong answer that passes the other rules;
    `reversed`: only the answers that the rule would drop, to measure what the rule is worth."""
    thresholds: Thresholds = Thresholds()
    """The paper's table: ratio of attention on the target, per format and number of images."""
    calibrate: Calibrate | Literal["auto"] | None = None
    """null: the table's thresholds; `auto` (advised for a model other than LLaVA-1.5): these, but calibrated wherever they
    let nearly all answers pass or nearly none; by `auroc` where the ratio tells wrong from right, else `keep: 0.5`.
    `{keep: 0.5}`, `{by: auroc}`: calibrated everywhere."""
    max_answer_chars: int | None = Field(default=512, ge=1)
    """A ground truth must be shorter than this (the paper's 512); null: no limit."""
    min_perplexity: float | None = Field(default=1.1, ge=1)
    """An answer the model was this sure of, or surer, is no likely hallucination: kept above (the paper's 1.1);
    null: no limit."""
    max_length_ratio: float | None = Field(default=4.0, ge=1)
    """Longer over shorter answer in characters, lengths under 16 counting as 16; null: no limit. The paper gives no number.
    A sum of log-probs grows with length: at 4, three quarters of the difference is length, not content."""
    min_edit_distance: float | None = Field(default=0.02, ge=0, le=1)
    """Edits over the longer length, case aside; null: no limit. The paper gives no number. One edit in 50 characters keeps
    `The letter is A.` against `The letter is B.` (0.06) and drops paragraphs that differ in a letter."""
    chosen: Literal["ground_truth", "own", "own_if_right", "response", "response_if_right"] = "ground_truth"
    """`ground_truth`: the row's answer (the paper). `own`: what the model answers about the target alone, which needs
    `score.own_answer` (or `confusions`) and no ground truth. `own_if_right`: that, where it says the same as the ground truth,
    else the ground truth. `response`, `response_if_right`: likewise, what it answers to the sample itself (CAPL), for
    `rejected: blocked` or `confusion`."""
    correct: Literal["equal", "likely"] = "equal"
    """When an answer counts as right. `equal`: it says the same as the chosen one, but for case, punctuation and articles.
    `likely`: also where the target is (nearly) the picture alone under which it is likeliest (`score.layer: alone`), in
    whatever words, unless it is unlikely under all of them. How nearly, and how unlikely, is found from the answers
    themselves; the latter needs `score.own_answer`."""
    rejected: Literal["own", "confusion", "both", "built", "own_and_built", "blocked", "image"] = "own"
    """`own`: the model's wrong answer (the paper). `confusion`: its answer about a companion picture alone, which scoring
    asks for with `confusions`; attention and perplexity rules don't apply to it. `both`: a pair of each kind.
    `built`: made of the sample's own parts, with no model asked: another picture's answer to the same question, answers or
    captions swapped, one dropped, all shortened, another picture's name. `own_and_built`: a pair of each kind. `blocked`: its
    answer while the pictures do not see each other (CAPL), which scoring asks for with `blocked_answer`. `image`: the chosen
    answer itself with another picture in the target's place (mDPO, arXiv 2406.11839); train it with the loss `image`."""
    rejected_per_prompt: int = Field(default=1, ge=1)
    """At most so many answers to one prompt (`rejected: both`, `own_and_built`) become the rejected ones of one pair, trained
    at the price of little more than one; those beyond start another pair."""
    other_picture: Literal["companion", "sample"] | None = None
    """Another picture in the target's place, under which the chosen answer is to be less likely: a companion's, or the target
    of an earlier `sample`. Sequences and single pictures only. With `rejected: image` null means `companion`; otherwise it is
    added to the pairs of answers, for a sum of losses as mDPO's."""
    confusions_per_sample: int = Field(default=1, ge=1)
    """At most so many companions' or built answers per sample become pairs."""
    image_tokens: list[str] = Field(
        default=[
            "<image>",
            "<|image|>",
            "<image_soft_token>",
            "<|image_pad|>",
            "<IMG_CONTEXT>",
            "[IMG]",
            "<|vision_start|>",
        ]
    )
    """Texts that stand for an image: an answer that holds one is degenerate and would break training."""
    balance: list[BalanceKey] = Field(default=[])
    """Make all groups as large as the smallest: by `format`, `parts` (format and number of images), `target` (its position)."""
    per_image: int | None = Field(default=None, ge=1)
    """At most so many pairs about one source picture, the first ones."""
    max_pairs: int | None = Field(default=None, ge=1)
    """At most so many pairs in all, drawn at random, the same for the same seed."""
    seed: int = 0
    """Decides which pairs `balance`, `max_pairs` and `confusions_per_sample` take."""

    @model_validator(mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        """YAML reads `off` and `false` as a boolean: no calibration."""
        if isinstance(value, dict) and value.get("calibrate") is False:
            return {**value, "calibrate": None}
        return value

    @model_validator(mode="after")
    def _unlike(self) -> Self:
        if self.chosen.startswith("response") and self.rejects_responses:
            raise ValueError(
                f"chosen is {self.chosen} and rejected is {self.rejected}: both sides would be the same answer; expected "
                "rejected: blocked or confusion"
            )
        return self

    @property
    def calibrates(self) -> bool:
        """Whether the answers are looked through before they are judged: companions' answers need no threshold."""
        from_data = (bool(self.attention) and self.calibrate is not None) or self.correct == "likely"
        return from_data and self.rejects_responses

    @property
    def rejects_responses(self) -> bool:
        """Whether the model's own answers to the samples may be rejected."""
        return self.rejected in ("own", "both", "own_and_built")
