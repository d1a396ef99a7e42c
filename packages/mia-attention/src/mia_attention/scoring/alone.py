"""The readout `alone`: instead of an attention ratio, the target's share of the likelihood under each picture alone."""

from __future__ import annotations

from mia_augment import FORMATS, Attention, LogpAlone, Sample
from mia_augment.statistics import shares

from mia_attention.answering.under_each_picture import under_each_picture
from mia_attention.measure.masses import ABOUT_SEVERAL
from mia_attention.readouts import AnsweredBatch


def shares_alone(batch: AnsweredBatch) -> list[Attention]:
    """What `share_of_target` says of each answer; samples of a single picture, where none needs telling, are not asked."""
    several = [index for index, sample in enumerate(batch.samples) if sample.parts > 1 and FORMATS[sample.format].asks_of_one]
    found = under_each_picture(
        [batch.samples[index] for index in several],
        [batch.answers[index] for index in several],
        batch.model,
        batch.processor,
        open_image=batch.open_image,
        batch_size=batch.settings.batch_size * max((batch.samples[index].parts for index in several), default=1),
    )
    measured = dict(zip(several, found, strict=True))
    return [share_of_target(sample, measured.get(index)) for index, sample in enumerate(batch.samples)]


def share_of_target(sample: Sample, logps: LogpAlone | None) -> Attention:
    """exp(l_target) / sum over parts k of exp(l_k), with l_k = log p(answer | part k alone) summed over its tokens.

    Sums, not means per token: with equal chances of every picture, the share is then the probability that the answer was given
    about the target. Means per token are kept beside them (`LogpAlone.per_token`).

    Args:
        logps: None for a sample of a single picture.

    Returns:
        The record with the share as `ratio` and all parts' shares as `region_mass`; or without, and why.
    """
    found = None if logps is None else shares(logps.summed)
    reason = None
    if logps is None:
        reason = "a single picture: nothing to compare with" if sample.parts == 1 else ABOUT_SEVERAL
    elif found is None:
        reason = _missing(sample, logps)
    return Attention(
        layer="alone",
        rows="generated",
        region_mass=found or [],
        image_mass=[],
        ratio=None if found is None else found[sample.target],
        reason=reason,
        logp_alone=logps,
    )


def _missing(sample: Sample, logps: LogpAlone) -> str:
    unknown = [region.label for region, logp in zip(sample.regions, logps.summed, strict=True) if logp is None]
    if len(unknown) == sample.parts:
        return "nothing was said, or no part can be shown alone"
    return f"the original picture of {', '.join(unknown)} cannot be used" if unknown else "the answer has no likelihood at all"
