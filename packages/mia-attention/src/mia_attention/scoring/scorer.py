"""Answers to multi-image prompts, and where the model looked meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from mia_augment import FORMATS, Attention, DataError, ModelError, Readout, Sample, ScoredSample, Skipped, check_unique
from mia_augment.images import OpenImage
from PIL import Image
from torch import Tensor

from mia_attention.answering.batches import run_in_order
from mia_attention.answering.generate import Answers
from mia_attention.answering.model_view import encode_prompts, open_view
from mia_attention.answering.part_answers import AloneAnswers, ask_parts
from mia_attention.answering.responses import Response, answer, responses_of
from mia_attention.answering.usable import Usable, encode_usable
from mia_attention.capture.given_answers import read_answers
from mia_attention.capture.query_rows import NO_ROW, own_rows, row_span
from mia_attention.capture.readers import Reader, reader_for
from mia_attention.causes.steering import editable_layers, images_blocked
from mia_attention.given.one_pass import GivenTurn, responses_from, say, say_and_look, turn
from mia_attention.given.said import GivenAnswers
from mia_attention.measure.masses import find_sinks, measure
from mia_attention.measure.massive_sinks import massive_prompts
from mia_attention.measure.token_weights import Columns, columns_of
from mia_attention.models.box_coverage import BoxCoverage
from mia_attention.models.inputs import Encoded
from mia_attention.readouts import AnsweredBatch, layers_of, readout_kind, readout_of
from mia_attention.settings import ScoreSettings
from mia_attention.states.hidden_states import decoder_blocks


@dataclass(frozen=True)
class Prepared:
    """A batch ready to be answered, and what of it could not be read."""

    samples: list[Sample]
    """Those that can be read."""
    usable: Usable[Any]
    encoded: Encoded | None
    columns: list[Columns]
    views: list[list[Image.Image]]
    """The pictures as the model sees them."""
    said: list[GivenTurn]
    """What each was answered, where the answers come from elsewhere."""
    massive: Callable[[], dict[int, Tensor]] | None = None
    """Sinks by massive activation (`massive_prompts`), found when first asked for; None: they are not to be looked for."""


def score(
    samples: Iterable[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings,
    *,
    open_image: OpenImage,
    on_skip: Callable[[Skipped], None] | None = None,
) -> Iterator[ScoredSample]:
    """Answer each sample greedily and measure attention on its images and regions, in input order.

    Args:
        samples: of any formats and numbers of images.
        model, processor: a transformers vision-language model on its device.
        settings: layer, rows, batch size, disturbed view.
        open_image: from an entry of `images` to an RGB picture; raises DataError where it cannot.
        on_skip: called with each sample whose pictures cannot be used; without it such a sample is an error.

    Raises:
        DataError: a picture cannot be used, and there is no `on_skip`.
        ModelError: the model cannot be read, gives NaN, or does not fit into memory.
    """
    scorer = Scorer(model, processor, settings, open_image)
    seen: set[str] = set()
    for result in run_in_order(samples, settings.batch_size, scorer.prepare, scorer.run, lambda sample: sample):
        check_unique([result.id] * (1 + (result.id in seen)), f"sample {result.id}")
        seen.add(result.id)
        if isinstance(result, ScoredSample):
            yield result
        elif on_skip is None:
            raise DataError(f"sample {result.id}: {result.reason}")
        else:
            on_skip(result)


class Scorer:
    """Answers and measures batches with one model and one setting."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        settings: ScoreSettings,
        open_image: OpenImage,
        *,
        readouts: list[Readout] | None = None,
        given: GivenAnswers | None = None,
    ) -> None:
        """`readouts` replaces the settings' layer; `given` knows the answers, which are generated without it."""
        self._model = model
        self._processor = processor
        self._settings = settings
        self._open_image = open_image
        self._given = given
        self._respond = partial(responses_from, given, model=model, processor=processor) if given and given.asks else None
        self._readouts = readouts or [readout_of(model, settings)]
        self.coverage = BoxCoverage(model, processor)
        self._looks = any(readout_kind(readout).measure is None for readout in self._readouts)
        _ = self._looks and self.coverage.known  # settled before batches are prepared in a thread beside the running model
        self._massive: list[int] = []
        if settings.sink_rule == "massive" and settings.sinks:
            self._massive = sorted({layer for each in self._readouts for layer in layers_of(each)})
            decoder_blocks(model)
        if settings.blocked_answer:
            editable_layers(model)
        for kind in map(readout_kind, self._readouts):
            if kind.check is not None:
                kind.check(model)

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """Open pictures, render prompts, find every region's tokens. Touches the model's configuration only."""
        usable = encode_usable(samples, [sample.id for sample in samples], self._encode)
        encoded, columns, views, said = usable.encoded or (None, [], [], [])
        massive = None
        if encoded is not None and self._massive:
            massive = cache(partial(massive_prompts, self._model, encoded, self._massive))
        return Prepared([samples[index] for index in usable.kept], usable, encoded, columns, views, said, massive)

    def _encode(self, samples: Sequence[Sample]) -> tuple[Encoded, list[Columns], list[list[Image.Image]], list[GivenTurn]]:
        given = self._given
        said = [] if given is None else [turn(sample, given.said(sample), self._model, self._processor) for sample in samples]
        views = [open_view(sample, self._open_image, self._settings) for sample in samples]
        prompts = [sample.prompt for sample in samples]
        encoded = encode_prompts(self._model, self._processor, prompts, views, question=self._settings.rows == "question")
        columns = [
            columns_of(sample, places, [picture.size for picture in view], encoded.prompt_length, self.coverage)
            for sample, places, view in zip(samples, encoded.image_tokens, views, strict=True)
            if self._looks
        ]
        return encoded, columns, views, said

    def run(self, prepared: Prepared) -> list[ScoredSample | Skipped]:
        """Answer and measure one batch, by the first readout."""
        settings = self._settings
        asked_alone = settings.confusions or settings.own_answer
        alone = ask_parts(
            [sample for sample in prepared.samples if asked_alone and FORMATS[sample.format].shared is None],
            self._model,
            self._processor,
            open_image=self._open_image,
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            companions=settings.confusions,
            respond=self._respond,
        )
        scored = [
            scored_sample(sample, response, attentions[0], alone.get(sample.id), confusions=settings.confusions)
            for sample, (response, attentions) in zip(prepared.samples, self.read(prepared), strict=True)
        ]
        if settings.blocked_answer:
            scored = [with_blocked(*pair) for pair in zip(scored, self.answer_blocked(prepared), strict=True)]
        return prepared.usable.in_order(scored)

    def answer_blocked(self, prepared: Prepared) -> list[Response | None]:
        """Each sample's answer while its pictures do not see each other; None for one of a single picture."""
        several = [len(sample.images) > 1 for sample in prepared.samples]
        if prepared.encoded is None or not any(several):
            return [None] * len(several)
        with images_blocked(self._model, prepared.encoded):
            responses = responses_of(self._answer(prepared, prepared.encoded), self._processor)
        return [response if blocked else None for response, blocked in zip(responses, several, strict=True)]

    def read(self, prepared: Prepared) -> list[tuple[Response, list[Attention]]]:
        """Each sample's response, and its attention by every readout."""
        if (measure_answers := readout_kind(self._readouts[0]).measure) is not None:
            responses = self.answer(prepared)
            found = measure_answers(self.answered(prepared.samples, [response.tokens for response in responses]))
            return [(response, [attention]) for response, attention in zip(responses, found, strict=True)]
        responses, spreads = self.spread(prepared)
        return [
            (
                response,
                [
                    self.attention(index, prepared, spread[index], readout)
                    for readout, spread in zip(self._readouts, spreads, strict=True)
                ],
            )
            for index, response in enumerate(responses)
        ]

    def answer(self, prepared: Prepared) -> list[Response]:
        """Answer a batch without looking at attention."""
        if prepared.encoded is None:
            return []
        if self._given is not None:
            return say(self._model, prepared.encoded, prepared.said)
        return responses_of(self._answer(prepared, prepared.encoded), self._processor)

    def _answer(self, prepared: Prepared, encoded: Encoded) -> Answers:
        ids = [sample.id for sample in prepared.samples]
        return answer(self._model, self._processor, encoded, ids, self._settings.max_new_tokens)

    def answered(self, samples: Sequence[Sample], answers: Sequence[Sequence[int]]) -> AnsweredBatch:
        """Finished answers, as a readout measures them."""
        return AnsweredBatch(samples, answers, self._model, self._processor, self._settings, self._open_image)

    def spread(self, prepared: Prepared) -> tuple[list[Response], list[Tensor]]:
        """Answer a batch: responses, and per readout the mean attention of each sample's rows, (batch, prompt length).

        Raises:
            ModelError: the readout measures answers without attention over positions.
        """
        encoded = prepared.encoded
        if encoded is None:
            return [], []
        rows, readout = self._settings.rows, self._readouts[0]
        if readout_kind(readout).measure is not None:
            raise ModelError(f"{readout}: has no attention over positions, so there is no map of the pictures; choose a layer")
        if readout_kind(readout).reader is None:
            responses = self.answer(prepared)
            said = [response.tokens for response in responses]
            found = read_answers(self._model, encoded.inputs, said, readout, rows=rows, question=encoded.question)
            return responses, [found.spread]
        reader = self.reader()
        if self._given is not None:
            return say_and_look(self._model, encoded, prepared.said, reader, rows)
        with reader.reading(row_span(rows, encoded)):
            answers = self._answer(prepared, encoded)
        own = own_rows(rows, encoded, answers.lengths, max(reader.length, encoded.prompt_length))
        spreads = [reader.spread(own, readout)[:, : encoded.prompt_length].float().cpu() for readout in self._readouts]
        return responses_of(answers, self._processor), spreads

    def reader(self) -> Reader:
        """What the readouts need of the model."""
        return reader_for(self._model, self._readouts, value_weighted=self._settings.value_weighted)

    def attention(self, index: int, prepared: Prepared, spread: Tensor, readout: Readout | None = None) -> Attention:
        """What one sample of a batch attended to, by its `spread`, (length,), which is 0 where it has no rows."""
        settings = self._settings
        readout = self._readouts[0] if readout is None else readout
        if not spread.any():
            return Attention(layer=readout, rows=settings.rows, region_mass=[], image_mass=[], reason=NO_ROW[settings.rows])
        return measure(
            prepared.samples[index],
            spread,
            prepared.columns[index],
            readout=readout,
            rows=settings.rows,
            sinks=self._sinks(index, prepared, spread, readout),
        )

    def _sinks(self, index: int, prepared: Prepared, spread: Tensor, readout: Readout) -> Tensor | None:
        """Sinks of one sample, (length,) bool; None: not asked for, or not to be found for such a readout."""
        settings = self._settings
        if not settings.sinks:
            return None
        if settings.sink_rule == "attention":
            return find_sinks(spread, prepared.columns[index], settings.sink_factor)
        layers = layers_of(readout)
        if prepared.massive is None or not layers:
            return None
        found = prepared.massive()
        return torch.stack([found[layer][index] for layer in layers]).any(0)


def scored_sample(
    sample: Sample,
    response: Response,
    attention: Attention,
    alone: AloneAnswers | None = None,
    *,
    confusions: bool = False,
) -> ScoredSample:
    """The sample with what was found out about it; with `confusions`, the answers about its companions too."""
    own = alone[sample.target] if alone and sample.target < len(alone) else None
    return ScoredSample(
        **{name: getattr(sample, name) for name in Sample.model_fields},
        response=response.text,
        response_tokens=len(response.tokens),
        response_ids=list(response.tokens),
        mean_logp=response.mean_logp,
        perplexity=response.perplexity,
        attention=attention,
        confusions=_companions(alone, sample.target) if confusions and alone is not None else None,
        own_answer=None if own is None else own.text,
        own_answer_ids=None if own is None else list(own.tokens),
        own_mean_logp=None if own is None or math.isnan(own.mean_logp) else own.mean_logp,
    )


def with_blocked(scored: ScoredSample, blocked: Response | None) -> ScoredSample:
    """The sample with what was answered while its pictures did not see each other."""
    if blocked is None:
        return scored
    return scored.model_copy(update={"blocked_answer": blocked.text, "blocked_answer_ids": list(blocked.tokens)})


def _companions(alone: AloneAnswers, target: int) -> list[str | None]:
    return [None if index == target or one is None else one.text for index, one in enumerate(alone)]
