"""From a model, some pictures and a question to the view of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from mia_augment import ConfigError, DataError, ModelError, Sample, is_out_of_memory
from mia_augment.prompting import refusal

from mia_attention.answering.likelihood import likelihoods
from mia_attention.answering.model_view import encode_prompts
from mia_attention.answering.part_answers import PartPrompt
from mia_attention.causes.knocking_out import knockout as knock_out
from mia_attention.looking.answer_view import AnswerView
from mia_attention.looking.answer_words import answer_pieces
from mia_attention.looking.asked import Asked, Picture, ask_about
from mia_attention.looking.word_readings import (
    WordReading,
    WordsSaid,
    answered,
    ends_turn,
    given,
    gradient_of_words,
    on_pictures,
)
from mia_attention.measure.attention_maps import CELLS
from mia_attention.models.box_coverage import BoxCoverage
from mia_attention.models.decoder import check_readable, layers_left_out, middle_layer
from mia_attention.models.inputs import Encoded

GRADIENT_HELP = "see docs/errors.md#gradient-that-was-not-measured"


def look(
    model: Any,
    processor: Any,
    pictures: Sequence[Picture],
    question: str,
    *,
    answer: str | None = None,
    layer: int | Sequence[int] | Literal["middle"] = "middle",
    gradient: bool = True,
    alone: bool = True,
    knockout: bool = True,
    max_new_tokens: int = 64,
    cells: int = CELLS,
    names: Sequence[str] | None = None,
) -> AnswerView:
    """What the model answers, and where each word came from. ::

        view = look(model, processor, ["a.jpg", "b.jpg"], "In Image2, what animal is it?")
        view.answer, view.share, view.save("where.html")

    Costs: attention is read while answering (1 to 3 % of its time); `gradient` a pass forward and back with the activations of
    a training step; `alone` a pass over each picture; `knockout` one over the prompt for each picture and one more.

    Args:
        model, processor: of transformers (`AutoModelForImageTextToText`, `AutoProcessor`), the model ready to answer.
        pictures: files or PIL pictures; the prompt calls them Image1, Image2 ..
        question: one that holds ``<image>`` once per picture is taken as the prompt it is.
        answer: look at this answer instead of the model's own.
        layer: whose attention is read, from 0; several: their mean; ``middle``: half of the layers, as in the paper.
        gradient, alone, knockout: whether to measure these of `AnswerView`.
        max_new_tokens: longest answer.
        cells: of the maps, along a picture's longer side.
        names: of the pictures, to be shown; by default their files'.

    Raises:
        ConfigError: no picture, no question, or model and processor are not what they should be.
        DataError: a picture cannot be opened, or the question names an image that is not there.
        ModelError: the model's attention cannot be read, or the layer does not exist.
    """
    check_model(model, processor)
    if max_new_tokens < 1 or cells < 1:
        raise ConfigError(f"expected max_new_tokens and cells of at least 1, got {max_new_tokens} and {cells}")
    asked = ask_about(pictures, question, names)
    layers = _layers(model, layer)
    encoded = _encoded(model, processor, asked)
    if answer is None:
        said = answered(model, processor, encoded, layers, max_new_tokens)
    else:
        said = given(model, processor, encoded, layers, asked.prompt, answer)
    coverage, notes = BoxCoverage(model, processor), layers_left_out(model)
    if not coverage.known:
        notes.append(f"{model.config.model_type}: visual tokens cannot be mapped to pixels, so there are shares but no maps")
    names = f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(map(str, layers))}"
    places = encoded.image_tokens[0]
    read = on_pictures(f"attention of {names}", said.attention, places, asked.pictures, coverage, cells)
    by_gradient = _gradient(model, encoded, said, asked, coverage, cells, notes) if gradient else None
    likely = _alone(model, processor, asked, said, notes) if alone else None
    lost = _knocked_out(model, encoded, said, notes) if knockout else None
    return _view(model, processor, asked, said, answer, read, by_gradient, likely, lost, notes)


def check_model(model: Any, processor: Any) -> None:
    """Raise ConfigError or ModelError where model and processor are not what `look` needs."""
    if isinstance(model, Sample):
        raise ConfigError("look: expected model, processor, pictures, question; look_at(sample, ..) looks at a Sample")
    if not hasattr(model, "generate") or not hasattr(model, "config"):
        swapped = "; model and processor are the wrong way round" if hasattr(processor, "generate") else ""
        raise ConfigError(f"model: expected a transformers model that generates, got a {type(model).__name__}{swapped}")
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise ConfigError(
            f"processor: expected one with a tokenizer and an image processor (AutoProcessor), got a {type(processor).__name__}"
        )
    if getattr(model, "training", False):
        raise ModelError("the model is in training mode, where dropout changes answers: call model.eval() first; "
                         "see docs/errors.md#training-mode")  # fmt: skip


def _layers(model: Any, layer: int | Sequence[int] | str) -> list[int]:
    if isinstance(layer, str) and layer != "middle":
        raise ConfigError(f"layer: expected a number, a list of numbers or 'middle', got {layer!r}")
    layers = [middle_layer(model)] if isinstance(layer, str) else [layer] if isinstance(layer, int) else list(layer)
    if not layers or len(set(layers)) != len(layers):
        raise ConfigError(f"layer: expected one or several different layers, got {layers}")
    check_readable(model, layers, warn=False)
    return layers


def _encoded(model: Any, processor: Any, asked: Asked) -> Encoded:
    try:
        return encode_prompts(model, processor, [asked.prompt], [asked.pictures])
    except Exception as error:
        if (reason := refusal(error)) is None:
            raise
        raise DataError(f"pictures and question: {reason}") from error


def _gradient(
    model: Any, encoded: Encoded, said: WordsSaid, asked: Asked, coverage: BoxCoverage, cells: int, notes: list[str]
) -> WordReading | None:
    try:
        rows = gradient_of_words(model, encoded, said.ids)
    except ModelError as error:
        notes.append(f"gradient x attention was not measured: {error}; {GRADIENT_HELP}")
        return None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        notes.append(f"gradient x attention was not measured: out of memory; {GRADIENT_HELP}")
        return None
    reads = "gradient x attention of all layers"
    return on_pictures(reads, rows, encoded.image_tokens[0], asked.pictures, coverage, cells)


def _alone(model: Any, processor: Any, asked: Asked, said: WordsSaid, notes: list[str]) -> list[float] | None:
    if asked.alone is None:
        notes.append(f"the answer's likelihood under each picture alone was not measured: {asked.why_not_alone}")
        return None
    prompts = [PartPrompt(f"{name} alone", [name], asked.alone) for name in asked.labels]
    pictures = dict(zip(asked.labels, asked.pictures, strict=True))
    try:
        found = likelihoods(prompts, [[said.ids]] * len(prompts), model, processor, open_image=pictures.__getitem__)
        return [each[0].logp for each in found]
    except (DataError, ModelError) as error:
        notes.append(f"the answer's likelihood under each picture alone was not measured: {error}")
        return None


def _knocked_out(model: Any, encoded: Encoded, said: WordsSaid, notes: list[str]) -> list[float] | None:
    if len(encoded.image_tokens[0]) < 2:
        return None
    try:
        [found] = knock_out(model, encoded, [said.ids])
        return [found.loss[index] for index in range(len(encoded.image_tokens[0]))]
    except (DataError, ModelError) as error:
        notes.append(f"what the answer loses without each picture was not measured: {error}")
        return None


def _view(
    model: Any,
    processor: Any,
    asked: Asked,
    said: WordsSaid,
    answer: str | None,
    read: WordReading,
    by_gradient: WordReading | None,
    likely: list[float] | None,
    lost: list[float] | None,
    notes: list[str],
) -> AnswerView:
    ended = bool(said.ids) and ends_turn(model, processor, said.ids[-1])
    words = said.ids[:-1] if ended else said.ids
    pieces = answer_pieces(processor.tokenizer, words)
    if answer is None and not ended:
        notes.append(f"the answer was cut off after {len(said.ids)} tokens (max_new_tokens)")
    return AnswerView(
        question=asked.question,
        prompt=asked.prompt,
        answer="".join(pieces).strip(),
        tokens=(*pieces, *([""] if ended else [])),
        token_ids=tuple(said.ids),
        logps=tuple(said.logps),
        pictures=asked.pictures,
        labels=asked.labels,
        names=asked.names,
        attention=read,
        gradient=by_gradient,
        alone=likely,
        knockout=lost,
        about=asked.about,
        given=answer is not None,
        model=str(getattr(model.config, "name_or_path", "") or model.config.model_type),
        notes=tuple(notes),
    )
