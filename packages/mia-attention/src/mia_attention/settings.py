"""What can be set when scoring. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from mia_augment import FORMATS, Rows, Settings, per_format
from mia_augment.storage import content_hash
from pydantic import Field, model_validator

from mia_attention.readouts import MEANING, READOUTS, ReadoutName

DELIMITER_SCALE = 8.0
"""Of hidden states around pictures: that of the published runs of arXiv 2602.01984 on Qwen2.5-VL."""

_SIGMAS = {
    name: (float, Field(default=row.sigma, ge=0, description=f"On the {row.disturbed}." if row.sigma else None))
    for name, row in FORMATS.items()
}


class DisturbSigma(per_format(Settings, _SIGMAS)):  # type: ignore[misc]
    """Standard deviation of the noise on the model's view, in grey levels of 255 (defaults: the paper's code)."""


class AnswerSource(Settings):
    """Where answers come from that are not generated here: a server, or a file."""

    url: str | None = None
    """Of an OpenAI-compatible server (vLLM, SGLang, `transformers serve`, llama.cpp), with its version: http://127.0.0.1:8000/v1."""
    model: str | None = None
    """The model's name on that server; by default the only one it serves."""
    file: Path | None = None
    """JSONL of `id` and `response` (or `response_ids`, the emitted token ids), one line per sample."""
    concurrency: int = Field(default=64, ge=1)
    """Requests that are open at the same time, at most."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds after which a request counts as failed."""
    retries: int = Field(default=5, ge=0)
    """How often a failed request is sent again, each time after a longer pause."""
    same_model: bool = True
    """Compare the server's first answers with the model here, and stop where they differ."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key; the key itself is never written anywhere."""

    def identity(self) -> dict[str, Any]:
        """What the answers depend on: not how often or how fast they are asked for, but the content of a file."""
        told = self.model_dump(mode="json", exclude={"concurrency", "timeout", "retries", "key_variable"})
        return {**told, **({"content": content_hash(self.file)} if self.file is not None and self.file.is_file() else {})}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.file is None):
            raise ValueError("answers: expected either url (a server) or file (answers given from elsewhere)")
        return self


class ScoreSettings(Settings):
    """How answers are made and attention is read; the defaults are the paper's.

    The stage's manifest says when attention was read, and why so. For answers given from elsewhere `attend` and `read_answers`
    choose among several ways and say which.
    """

    ask: bool = True
    """Let the model answer. false: it is neither loaded nor asked, for pairs built of the samples' own parts
    (`select.rejected: built`)."""
    layer: int | list[int] | ReadoutName = Field(default="middle", description=MEANING)
    heads: list[tuple[int, int]] | None = None
    """With `layer: heads`, which: `[[layer, head], ..]`, both from 0."""
    rows: Rows = "generated"
    """Query rows: `generated` (the paper's) tokens as queries, `predicting` the positions that predict each answer token,
    or the `question`'s tokens."""
    value_weighted: bool = False
    """Weight attention by the length of the value vector it fetches."""
    sinks: bool = False
    """Also measure the ratio without the visual tokens that draw attention whatever is asked (attention sinks)."""
    sink_rule: Literal["attention", "massive"] = "attention"
    """Which visual tokens are sinks: those that draw `sink_factor` times the mean of their image's tokens (`attention`), or
    those whose hidden state is `massive` where the first token's is (2503.03321; for layers and heads, one more pass)."""
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
    answers: AnswerSource | None = None
    """Take the answers from a server or a file; this model then reads attention and log-probs in one pass over each."""
    blocked_answer: bool = False
    """Also answer with attention between the pictures blocked (CAPL), which is what `select.rejected: blocked` needs: one more
    answer for each sample of several picture files."""
    auto_samples: int = Field(default=200, ge=8)
    """How many of the first samples `layer: auto` looks at."""
    draws: int = Field(default=5, ge=1)
    """Answers drawn for each sample by `layer: consistency`."""
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Of these draws: 1 draws as the model's probabilities say, less nearer to its greedy answer."""
    seed: int = Field(default=0, ge=0)
    """Of the noise and the draws, together with each record's id."""

    @property
    def looks_at_parts(self) -> bool:
        """Whether the parts' original pictures are opened, besides the samples' own."""
        return self.confusions or self.own_answer or self.layer == "alone"

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if (self.layer == "heads") != (self.heads is not None):
            raise ValueError(
                f"layer is {self.layer} and heads is {self.heads}: expected `layer: heads` with `heads: [[layer, head], ..]`"
            )
        if self.heads is not None and (
            not self.heads or len(set(self.heads)) != len(self.heads) or min(map(min, self.heads)) < 0
        ):
            raise ValueError(f"heads: expected one or several different [layer, head], counted from 0, got {self.heads}")
        return self

    @model_validator(mode="after")
    def _sinks(self) -> Self:
        names_layers = not isinstance(self.layer, str) or READOUTS[self.layer].names_layers
        if self.sink_rule == "massive" and self.sinks and not names_layers:
            raise ValueError(
                f"sink_rule is massive and layer is {self.layer}: expected layers, heads, middle or auto, since a token is "
                "massive where it enters a layer; take `sink_rule: attention`"
            )
        return self

    @model_validator(mode="after")
    def _layers(self) -> Self:
        layers = [self.layer] if isinstance(self.layer, int) else self.layer
        if isinstance(layers, list):
            if not layers or len(set(layers)) != len(layers):
                raise ValueError(f"layer: expected one or several different layers, got {layers}")
            if any(index < 0 for index in layers):
                raise ValueError(f"layer: expected layers counted from 0, got {layers}")
        return self
