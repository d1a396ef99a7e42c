"""Samples that no model is asked, because their pairs are built of their own parts. Needs no torch."""

from __future__ import annotations

from mia_augment import Attention, DataError, Sample, ScoredSample, Skipped
from mia_augment.images import OpenImage

from mia_attention.settings import ScoreSettings

NOT_ASKED = "the model was not asked (score.ask: false)"


def unasked(sample: Sample, settings: ScoreSettings, open_image: OpenImage) -> ScoredSample | Skipped:
    """The sample as a scored one without an answer; or why its pictures cannot be used."""
    try:
        for name in sample.images:
            open_image(name)
    except DataError as error:
        return Skipped(id=sample.id, reason=str(error))
    return ScoredSample(
        **{name: getattr(sample, name) for name in Sample.model_fields},
        response="",
        response_tokens=0,
        mean_logp=None,
        perplexity=None,
        attention=Attention(layer=settings.layer, rows=settings.rows, region_mass=[], image_mass=[], reason=NOT_ASKED),
    )
