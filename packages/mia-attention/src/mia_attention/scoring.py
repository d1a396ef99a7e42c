"""Answers to multi-image prompts, and where the model looked meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mia_augment.errors import ConfigError, DataError
from mia_augment.records import Attention, Sample, ScoredSample, Skipped
from torch import Tensor

from mia_attention.batching import plan, run_batches, windows
from mia_attention.capture import capture_attention
from mia_attention.columns import Columns, batch_columns, columns_of
from mia_attention.coverage import BoxCoverage
from mia_attention.decoder import resolve_layer
from mia_attention.generate import Answers
from mia_attention.inputs import Encoded, encode
from mia_attention.ratio import region_ratio, sequence_ratio
from mia_attention.responses import OpenImage, Response, answer, responses_of
from mia_attention.settings import ScoreSettings
from mia_attention.views import open_view, render_with_tail

NO_ROW = {
    "generated": "no generated row: the answer has one token",
    "predicting": "no row predicts an answer",
    "question": "no question text after the last image",
}


@dataclass(frozen=True)
class Prepared:
    """A batch ready to be answered, and what of it could not be read."""

    samples: list[Sample]
    skipped: list[Skipped]
    encoded: Encoded | None
    columns: list[Columns]


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
    for window in windows(samples, settings.batch_size):
        check_unique(sample.id for sample in window)
        batches = [[window[index] for index in batch] for batch in plan(window, settings.batch_size)]
        results: dict[str, ScoredSample | Skipped] = {}
        for batch in run_batches(batches, scorer.prepare, scorer.run):
            results.update({result.id: result for result in batch})
        for sample in window:
            result = results[sample.id]
            if isinstance(result, ScoredSample):
                yield result
            elif on_skip is None:
                raise DataError(f"sample {result.id}: {result.reason}")
            else:
                on_skip(result)


def check_unique(ids: Iterable[str]) -> None:
    """Raise DataError where an id comes twice."""
    seen: set[str] = set()
    for record_id in ids:
        if record_id in seen:
            raise DataError(f"sample {record_id}: expected unique ids, got this one twice")
        seen.add(record_id)


class Scorer:
    """Scores batches with one model and one setting."""

    def __init__(self, model: Any, processor: Any, settings: ScoreSettings, open_image: OpenImage) -> None:
        if settings.layer == "auto":
            raise ConfigError(
                "layer 'auto' is settled by mia_attention.choose_layer, which needs answers; pass the layer it chose"
            )
        self._model = model
        self._processor = processor
        self._settings = settings
        self._open_image = open_image
        self._coverage = BoxCoverage(model, processor)
        self._layers = resolve_layer(model, settings.layer)

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """Open pictures, render prompts, find every region's tokens. Touches the model's configuration only."""
        kept, skipped, views = [], [], []
        for sample in samples:
            try:
                views.append(open_view(sample, self._open_image, self._settings))
                kept.append(sample)
            except DataError as error:
                skipped.append(Skipped(id=sample.id, reason=str(error)))
        if not kept:
            return Prepared([], skipped, None, [])
        texts, tails = zip(*(render_with_tail(self._processor, sample.prompt) for sample in kept), strict=True)
        asked = tails if self._settings.rows == "question" else None
        encoded = encode(self._model, self._processor, texts, views, tails=asked)
        columns = [
            columns_of(sample, places, [picture.size for picture in view], encoded.prompt_length, self._coverage)
            for sample, places, view in zip(kept, encoded.image_tokens, views, strict=True)
        ]
        return Prepared(kept, skipped, encoded, columns)

    def run(self, prepared: Prepared) -> list[ScoredSample | Skipped]:
        """Answer and measure one batch."""
        if prepared.encoded is None:
            return list(prepared.skipped)
        encoded = prepared.encoded
        columns = batch_columns(prepared.columns).to(self._model.device)
        with capture_attention(
            self._model,
            self._layers,
            rows=_span(self._settings.rows, encoded),
            columns=columns,
            value_weighted=self._settings.value_weighted,
        ) as captured:
            ids = [sample.id for sample in prepared.samples]
            answers = answer(self._model, self._processor, encoded, ids, self._settings.max_new_tokens)
        masses = captured.attention() if captured.rows else columns.new_zeros(len(ids), 0, columns.shape[-1])
        means = row_means(masses, self._settings.rows, answers, encoded)
        scored = [
            self._scored(*parts)
            for parts in zip(prepared.samples, responses_of(answers, self._processor), means, prepared.columns, strict=True)
        ]
        return [*scored, *prepared.skipped]

    def _scored(self, sample: Sample, response: Response, means: list[float] | None, columns: Columns) -> ScoredSample:
        return ScoredSample(
            **{name: getattr(sample, name) for name in Sample.model_fields},
            response=response.text,
            response_tokens=len(response.tokens),
            mean_logp=response.mean_logp,
            perplexity=response.perplexity,
            attention=self._attention(sample, means, columns),
        )

    def _attention(self, sample: Sample, means: list[float] | None, columns: Columns) -> Attention:
        layer = self._layers[0] if len(self._layers) == 1 else self._layers
        rows = self._settings.rows
        if means is None:
            return Attention(layer=layer, rows=rows, region_mass=[], image_mass=[], reason=NO_ROW[rows])
        image_mass, region_mass = means[: columns.images], means[columns.images : columns.images + sample.parts]
        ratio, reason = measure(sample, image_mass, region_mass, columns)
        return Attention(
            layer=layer,
            rows=rows,
            region_mass=region_mass if columns.mapped else [],
            image_mass=image_mass,
            ratio=ratio,
            reason=reason,
        )


def measure(
    sample: Sample, image_mass: list[float], region_mass: list[float], columns: Columns
) -> tuple[float | None, str | None]:
    """The paper's ratio of a sample, or None and why not.

    Whole images (sequences) compare means per visual token; boxes compare mass with the whole picture's.
    """
    if sample.parts < 2:
        return None, "a single picture: nothing to compare with"
    if not columns.mapped:
        return None, "boxes cannot be mapped to the visual tokens of this model family"
    region = sample.regions[sample.target]
    if columns.tokens[sample.target] == 0:
        return None, f"no visual token sees {region.label}: it was cropped away"
    if region.box is None:
        ratio = sequence_ratio(region_mass, columns.tokens, sample.target)
    else:
        ratio = region_ratio(region_mass[sample.target], image_mass[region.image])
    return (ratio, None) if ratio is not None else (None, "no attention on any visual token")


def row_means(masses: Tensor, rows: str, answers: Answers, encoded: Encoded) -> list[list[float] | None]:
    """Mean of each sample's own rows; None where it has none.

    Args:
        masses: (batch, rows, columns) of the batch's captured rows.
        rows: which they are.
        answers: how long each answer is.
        encoded: where each question stands.
    """
    count = torch.arange(masses.shape[1], device=masses.device)
    if rows == "question":
        spans = torch.tensor(encoded.question, device=masses.device)
        first = _span(rows, encoded)[0]
        own = (count >= spans[:, :1] - first) & (count < spans[:, 1:] - first)
    else:
        own = count < (answers.lengths - int(rows == "generated"))[:, None]
    sums = torch.matmul(own[:, None].to(masses), masses)[:, 0]
    numbers = own.sum(1)
    means = (sums / numbers.clamp_min(1)[:, None]).tolist()
    return [mean if number else None for mean, number in zip(means, numbers.tolist(), strict=True)]


def _span(rows: str, encoded: Encoded) -> tuple[int, int | None]:
    """The rows to capture, by position: those that any sample of the batch needs."""
    prompt = encoded.prompt_length
    if rows == "question":
        return min(start for start, _ in encoded.question or [(prompt, prompt)]), prompt
    return prompt - (rows == "predicting"), None
