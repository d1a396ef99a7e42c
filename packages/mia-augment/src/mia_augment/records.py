"""The records that flow between the stages: augment -> score -> select -> train.

All are frozen and refuse unknown fields. Boxes are (left, top, right, bottom) in pixels, half-open; log-probs are in nats.
Entries of ``images`` are POSIX paths found in the stage's folder or one its manifest names (see
`mia_augment.storage.files.resolve_image`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mia_augment.compose.prompts import IMAGE
from mia_augment.formats import FormatName
from mia_augment.images.geometry import Box

Rows = Literal["generated", "predicting", "question"]
"""Which query rows attention is read from (see `mia_attention`)."""

Readout = int | list[int] | list[tuple[int, int]] | Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]*$")]
"""What attention was read from: a layer, the mean over several, that over some heads (layer, head), or a name of
`mia_attention`'s table of readouts."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Region(Record):
    """One part of a multi-image prompt."""

    image: int = Field(ge=0)
    """Index into `images`."""
    box: Box | None = None
    """Where the part lies in that image; None: it is the whole image."""
    label: str
    """How the prompt calls it, e.g. ``Image2``."""


class Source(Record):
    """Where a sample comes from."""

    ids: list[str]
    """Id of the source row of each region; the target's is the row that was asked."""
    paths: list[str]
    """Picture of each region, relative to the image root."""
    question: str
    """The question as it stood in the target's row."""
    answers: list[str | None] = Field(default_factory=list)
    """Per region, what that picture's own row answers to this very question; None where no row asks it."""


class Turn(Record):
    prompt: str
    answer: str


class Sample(Record):
    """A prompt over one or several pictures with its ground-truth answer."""

    id: str = Field(min_length=1)
    format: FormatName
    images: list[str] = Field(min_length=1)
    prompt: str
    """Holds `<image>` exactly once for every entry of `images`, in their order."""
    answer: str
    """The ground truth; empty: the row had none."""
    regions: list[Region] = Field(min_length=1)
    target: int = Field(ge=0)
    """Index into `regions`: the part the question is about; of several, the one whose row was asked."""
    named: list[int] | None = Field(default=None, exclude_if=lambda named: named is None)
    """Indices into `regions`: all parts that the question is about, where it is about several; not written elsewhere."""
    source: Source
    followups: list[Turn] = Field(default_factory=list)
    """Later turns of the same conversation; each names the target by itself. Not scored."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_prompt_and_regions(self.id, self.prompt, self.images, self.regions, self.target)
        return self

    @property
    def parts(self) -> int:
        """Number of pictures the prompt speaks of (regions, whatever number of image files hold them)."""
        return len(self.regions)


class LogpAlone(Record):
    """How likely a response is given each part's own picture alone and the bare question; None: could not be measured."""

    summed: list[float | None]
    """Per region, the log-prob of the whole response, with the token that ends its turn."""
    per_token: list[float | None]
    """Per region, the mean over the response's tokens."""
    per_token_any: float | None = None
    """Mean over the response's tokens of each one's largest log-prob under any part: how likely its words are, each from the
    picture that suits it; None: not known."""


class Attention(Record):
    """How much of the chosen rows' attention lies where."""

    layer: Readout
    rows: Rows
    region_mass: list[float]
    """Share of attention on each region's visual tokens, mean over the rows; of `alone`, shares that add up to 1."""
    image_mass: list[float]
    """Share of attention on each image's visual tokens, mean over the rows."""
    region_tokens: list[float] = Field(default_factory=list)
    """How many visual tokens see each region, parts of tokens counted; empty: not known."""
    ratio: float | None = None
    """Target against all (0..1); None: nothing could be measured, see `reason`."""
    reason: str | None = None
    ratio_without_sinks: float | None = None
    """The ratio without visual tokens that draw attention whatever is asked; None: not measured."""
    logp_alone: LogpAlone | None = None
    """From what the shares of the readout `alone` were made; None: it was another."""


class ScoredSample(Sample):
    """A sample with the model's own answer to it, and where the model looked while it answered."""

    response: str
    response_tokens: int = Field(ge=0)
    response_ids: list[int] | None = None
    """The tokens that the model emitted, the one that ends its turn included; None: not known."""
    mean_logp: float | None
    """Mean log-prob of the emitted tokens; None: no token was emitted."""
    perplexity: float | None
    """exp(-mean_logp)."""
    attention: Attention
    confusions: list[str | None] | None = None
    """Per region, the model's answer to the same question about that part alone; None at the target."""
    own_answer: str | None = None
    """The model's answer to the same question about the target alone; None: not asked, or its picture cannot be used."""
    own_answer_ids: list[int] | None = None
    """The tokens that it emitted for that, the one that ends its turn included."""
    own_mean_logp: float | None = None
    """The mean of their log-probs; None: not known."""
    blocked_answer: str | None = None
    """The model's answer to this prompt while its pictures do not see each other; None: not asked, or a single picture."""
    blocked_answer_ids: list[int] | None = None
    """The tokens that it emitted for that, the one that ends its turn included."""


class Scores(Record):
    """The numbers that the selection rules decided by; None: not measured."""

    ratio: float | None = None
    perplexity: float | None = None
    length_ratio: float | None = None
    edit_distance: float | None = None


class RejectedAnswer(Record):
    """One more answer to a prompt that is not to be preferred."""

    text: str
    ids: list[int] | None = None
    """The tokens that the model emitted when it gave this answer itself to this prompt; None: it did not."""


def _absent(value: object) -> bool:
    """Whether an optional field holds nothing; it is not written then, as before there was such a field."""
    return not value


class PreferencePair(Record):
    """Two answers to one prompt: `chosen` is to be preferred over `rejected`."""

    id: str = Field(min_length=1)
    format: FormatName
    images: list[str] = Field(min_length=1)
    prompt: str
    chosen: str
    rejected: str
    chosen_ids: list[int] | None = None
    """The tokens that the model emitted when it gave the chosen answer itself, about the target alone or to this prompt; None:
    it did not."""
    rejected_ids: list[int] | None = None
    """The tokens that the model emitted when it gave the rejected answer itself to this prompt; None: it did not."""
    more_rejected: list[RejectedAnswer] = Field(default_factory=list, exclude_if=_absent)
    """Further answers to the same prompt over which the chosen one is to be preferred."""
    rejected_images: list[str] | None = Field(default=None, exclude_if=_absent)
    """As many other pictures in the places of `images`, under which the chosen answer is to be less likely. Where `rejected` is
    the chosen answer itself, the pair contrasts pictures alone."""
    scores: Scores
    target: int = Field(ge=0)
    regions: list[Region] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_prompt_and_regions(self.id, self.prompt, self.images, self.regions, self.target)
        if self.rejected_images is not None and len(self.rejected_images) != len(self.images):
            raise ValueError(
                f"record {self.id}: expected {len(self.images)} rejected_images, one in the place of each image, got "
                f"{len(self.rejected_images)}"
            )
        return self

    @property
    def rejected_answers(self) -> list[RejectedAnswer]:
        """All of them; none where the pair contrasts pictures alone."""
        if self.rejected_images and not self.more_rejected and self.rejected.strip() == self.chosen.strip():
            return []
        return [RejectedAnswer(text=self.rejected, ids=self.rejected_ids), *self.more_rejected]

    def under_rejected_images(self) -> PreferencePair | None:
        """The chosen answer to the same prompt over the other pictures, as a pair whose rejected side says nothing; or None."""
        if self.rejected_images is None:
            return None
        changed = {"images": self.rejected_images, "rejected_images": None, "more_rejected": [], "rejected": ""}
        return self.model_copy(update={**changed, "rejected_ids": None})


class Skipped(Record):
    """An input row that gave no sample."""

    id: str
    reason: str


class Dropped(Record):
    """A scored sample that gave no pair: which rule dropped it, at which value."""

    id: str
    format: FormatName
    parts: int
    rule: str
    value: float | str | None = None


def check_prompt_and_regions(record_id: str, prompt: str, images: list[str], regions: list[Region], target: int) -> None:
    """Raise ValueError unless placeholders, images, regions and target agree."""
    placeholders = prompt.count(IMAGE)
    if placeholders != len(images):
        raise ValueError(
            f"record {record_id}: expected one {IMAGE} per image, got {placeholders} in the prompt for {len(images)} images"
        )
    if target >= len(regions):
        raise ValueError(f"record {record_id}: target {target} is not one of its {len(regions)} regions")
    for region in regions:
        if region.image >= len(images):
            raise ValueError(
                f"record {record_id}: region {region.label!r} lies in image {region.image}, but there are {len(images)}"
            )
        if region.box is not None and not (0 <= region.box[0] < region.box[2] and 0 <= region.box[1] < region.box[3]):
            raise ValueError(f"record {record_id}: region {region.label!r} has an empty box {region.box}")
