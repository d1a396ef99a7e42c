"""What can be set when scoring. Needs no torch."""

from __future__ import annotations

from typing import Self

from mia_augment import FORMATS, Rows, Settings, per_format
from pydantic import Field, model_validator

from mia_attention.readouts import MEANING, ReadoutName

_SIGMAS = {
    name: (float, Field(default=row.sigma, ge=0, description=f"On the {row.disturbed}." if row.sigma else None))
    for name, row in FORMATS.items()
}


class DisturbSigma(per_format(Settings, _SIGMAS)):  # type: ignore[misc]
    """Standard deviation of the noise on the model's view, in grey levels of 255 (defaults: the paper's code)."""


class ScoreSettings(Settings):
    """How answers are made and attention is read; the defaults are the paper's.

    The stage's manifest says when attention was read, and why so. For answers given from elsewhere `attend` and `read_answers`
    choose among several ways and say which.
    """

    layer: int | list[int] | ReadoutName = Field(default="middle", description=MEANING)
    rows: Rows = "generated"
    """Query rows: `generated` (the paper's) tokens as queries, `predicting` the positions that predict each answer token,
    or the `question`'s tokens."""
    value_weighted: bool = False
    """Weight attention by the length of the value vector it fetches."""
    sinks: bool = False
    """Also measure the ratio without the visual tokens that draw attention whatever is asked (attention sinks)."""
    sink_factor: float = Field(default=10.0, gt=1)
    """A visual token is a sink where it draws this many times the mean of its image's tokens."""
    batch_size: int = Field(default=8, ge=1)
    """Samples answered at once; halved and tried again when memory runs out."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens."""
    disturb: bool = True
    """Add noise to the model's view of composed pictures, as the paper's code does to provoke errors. Training uses the
    clean pictures."""
    sigma: DisturbSigma = DisturbSigma()
    confusions: bool = False
    """Also ask the same question about each part alone: what companions are answered, and the target (`own_answer`)."""
    own_answer: bool = False
    """Also ask the same question about the target alone, which is all that `select.chosen: own` needs."""
    auto_samples: int = Field(default=200, ge=8)
    """How many of the first samples `layer: auto` looks at."""
    seed: int = Field(default=0, ge=0)
    """Of the noise, together with each record's id."""

    @property
    def looks_at_parts(self) -> bool:
        """Whether the parts' original pictures are opened, besides the samples' own."""
        return self.confusions or self.own_answer or self.layer == "alone"

    @model_validator(mode="after")
    def _layers(self) -> Self:
        layers = [self.layer] if isinstance(self.layer, int) else self.layer
        if isinstance(layers, list):
            if not layers or len(set(layers)) != len(layers):
                raise ValueError(f"layer: expected one or several different layers, got {layers}")
            if any(index < 0 for index in layers):
                raise ValueError(f"layer: expected layers counted from 0, got {layers}")
        return self
