"""The table of readouts: what `layer` can be set to, what each reads, in which models, and how it runs. Needs no torch.

To add one: its name in `ReadoutName`, its row in `READOUTS`, its function and its test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mia_augment import Attention, Readout, Sample
    from mia_augment.images import OpenImage

    from mia_attention.capture.readers import Reader
    from mia_attention.settings import ScoreSettings

ReadoutName = Literal["middle", "rollout", "gradient", "alone", "consistency", "heads", "auto"]

GivenWay = Literal["one_pass", "prompt_alone", "shared_prompt", "generate_cache", "forward_and_back"]
"""How given answers are read, each pass ending after the last layer needed: prompt and answer together; the prompt without an
answer; each prompt once and then its answers on its cache; or only the answers, on the cache that `generate` has left. Or
prompt and answer together through all layers, and back."""


@dataclass(frozen=True)
class AnsweredBatch:
    """Answers to samples, for a readout that measures finished answers.

    Attributes:
        samples: one for each answer.
        answers: token ids, the one that ends the turn included where it was emitted.
        open_image: from an entry of `images` or `source.paths` to a picture.
    """

    samples: Sequence[Sample]
    answers: Sequence[Sequence[int]]
    model: Any
    processor: Any
    settings: ScoreSettings
    open_image: OpenImage


@dataclass(frozen=True)
class ReadoutKind:
    """One row of the table. A kind stands for layers (`resolve`), or it has exactly one of `reader`, `way` alone, `measure`.

    Attributes:
        reads: what it reads, for the documentation of `layer`.
        when: when `score` reads it and why so, for the manifest.
        resolve: from a model to what the name stands for; None: the name is the readout.
        from_samples: `resolve` needs answers; the stage chooses on its first samples.
        check: raises ModelError where a model cannot be read so; what only running it shows comes later.
        reader: from (model, readouts, value_weighted) to what observes the model while it answers.
        way, why: how a given answer is always read, and why so; None: the cheapest right way is chosen.
        measure: measures finished answers without attention over positions, so that there is no map of the pictures.
        weighable: whether `value_weighted` changes it.
        rowed: whether `rows` changes it.
        together: whether several of its readouts are read in one run.
        setting: the field of `ScoreSettings` that says what the name stands for; None: the name says it.
    """

    reads: str
    when: str = ""
    resolve: Callable[[Any], Readout] | None = None
    from_samples: bool = False
    check: Callable[[Any], object] | None = None
    reader: Callable[[Any, list[Readout], bool], Reader] | None = None
    way: GivenWay | None = None
    why: str = ""
    measure: Callable[[AnsweredBatch], list[Attention]] | None = None
    weighable: bool = True
    rowed: bool = True
    together: bool = False
    setting: str | None = None

    @property
    def names_layers(self) -> bool:
        """Whether it stands for layers or heads."""
        return self.resolve is not None or self.setting is not None


def _middle(model: Any) -> Readout:
    from mia_attention.models.decoder import middle_layer

    return middle_layer(model)


def _auto(_: Any) -> Readout:
    from mia_augment import ConfigError

    raise ConfigError("layer 'auto' is chosen from answers; run the stage, or mia_attention.find_layer and pass its result")


def _layers_reader(model: Any, readouts: list[Readout], value_weighted: bool) -> Reader:
    from mia_attention.capture.readers import LayersReader

    return LayersReader(model, readouts, value_weighted=value_weighted)


def _heads_reader(model: Any, readouts: list[Readout], value_weighted: bool) -> Reader:
    from mia_attention.capture.readers import HeadsReader

    return HeadsReader(model, readouts, value_weighted=value_weighted)


def _rollout_reader(model: Any, readouts: list[Readout], value_weighted: bool) -> Reader:
    from mia_attention.capture.readers import RolloutReader

    return RolloutReader(model, value_weighted=value_weighted)


def _check_rollout(model: Any) -> None:
    from mia_attention.capture.rollouts import rollout_layers

    rollout_layers(model)


def _check_gradient(model: Any) -> None:
    from mia_attention.capture.gradients import gradient_layers

    gradient_layers(model)


def _alone(batch: AnsweredBatch) -> list[Attention]:
    from mia_attention.scoring.alone import shares_alone

    return shares_alone(batch)


def _consistency(batch: AnsweredBatch) -> list[Attention]:
    from mia_attention.scoring.self_consistency import consistencies

    return consistencies(batch)


LAYERS = ReadoutKind(
    reads="a layer, from 0, or a list of layers: the mean over them",
    when="while answering: the rows pass by anyway; a second pass over prompt and answer would cost more",
    reader=_layers_reader,
    together=True,
)
"""The readout of numbers."""

HEADS = ReadoutKind(
    reads="the heads of `heads`, (layer, head): the mean over them; `mia_attention.find_heads` finds those that tell most",
    when=LAYERS.when,
    reader=_heads_reader,
    together=True,
    setting="heads",
)
"""The readout of pairs of numbers."""

READOUTS: dict[ReadoutName, ReadoutKind] = {
    "middle": ReadoutKind(reads="half of the layers (the paper's 16 of 32)", resolve=_middle),
    "rollout": ReadoutKind(
        reads="attention followed through all layers down to the input",
        when="while answering: keeping all layers' queries costs less than a second pass, and no cache holds them",
        check=_check_rollout,
        reader=_rollout_reader,
        way="one_pass",
        why="rollout needs the queries of all positions, which no cache holds",
    ),
    "gradient": ReadoutKind(
        reads="all layers' attention, weighted by how the answer's log-prob depends on it (a pass forward and back after each "
        "answer)",
        when="after answering, in a pass over prompt and answer and back: the gradient needs the whole answer",
        check=_check_gradient,
        way="forward_and_back",
        why="the gradient of the answer's log-prob",
        weighable=False,
    ),
    "alone": ReadoutKind(
        reads="no attention, but the target's share of the answer's likelihood under each picture alone with the bare question "
        "(a pass over each); a right answer is likely under the target, and no ground truth is needed to tell",
        when="after answering, in a pass over each picture alone; what several samples ask about a picture runs once",
        measure=_alone,
        weighable=False,
        rowed=False,
    ),
    "consistency": ReadoutKind(
        reads="no attention, but how many of `draws` sampled answers say what the answer says (self-consistency)",
        when="after answering: the prompt is answered again, with draws, as often as `draws` says",
        measure=_consistency,
        weighable=False,
        rowed=False,
    ),
    "heads": HEADS,
    "auto": ReadoutKind(
        reads="the layer that best tells right from wrong answers on the first samples", resolve=_auto, from_samples=True
    ),
}

BESIDE_LAYERS: tuple[ReadoutName, ...] = tuple(name for name, kind in READOUTS.items() if not kind.names_layers)
"""Names of readouts that are no choice of layers or heads."""

_EACH = "; ".join(f"`{name}`: {kind.reads}" for name, kind in READOUTS.items())
MEANING = f"What tells where the model looked: {LAYERS.reads}; or {_EACH}."
"""What `ScoreSettings.layer` means, in one sentence."""


def layers_of(readout: Readout) -> list[int]:
    """Layers that a readout names, of heads too, each once, in order; none of one that is a name.

    >>> layers_of(3), layers_of([5, 2]), layers_of([(4, 0), (1, 7), (4, 2)]), layers_of("rollout")
    ([3], [2, 5], [1, 4], [])
    """
    several = readout if isinstance(readout, list) else [readout]
    return sorted({each if isinstance(each, int) else each[0] for each in several if not isinstance(each, str)})


def readout_kind(readout: Readout) -> ReadoutKind:
    """The row of a readout or of a setting's `layer`.

    Raises:
        ConfigError: there is no such readout.
    """
    if not isinstance(readout, str):
        return HEADS if isinstance(readout, list) and not isinstance(readout[0], int) else LAYERS
    for name, kind in READOUTS.items():
        if name == readout:
            return kind
    from mia_augment import ConfigError

    raise ConfigError(f"layer: expected a number, a list of numbers or one of {', '.join(READOUTS)}, got {readout!r}")


def readout_of(model: Any, settings: ScoreSettings) -> Readout:
    """What a setting's layer means for a model.

    Raises:
        ConfigError: `auto`, which has to be chosen first (`mia_attention.find_layer`; the stage does it).
    """
    layer: Readout = settings.layer
    kind = readout_kind(layer)
    if kind.setting is not None and isinstance(layer, str):
        named: Readout = getattr(settings, kind.setting)
        return named
    resolved: Readout = layer if kind.resolve is None else kind.resolve(model)
    only = resolved[0] if isinstance(resolved, list) and len(resolved) == 1 else None
    return only if isinstance(only, int) else resolved
