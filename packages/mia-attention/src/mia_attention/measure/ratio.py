"""From masses of attention to the ratio that tells whether the target was looked at: pure functions of numbers."""

from __future__ import annotations

from collections.abc import Sequence


def sequence_ratio(masses: Sequence[float], tokens: Sequence[float], target: int) -> float | None:
    """Mean attention per visual token of the target over the sum of all images' means, so that image size does not matter.

    ratio = (m_t / n_t) / sum_i (m_i / n_i)

    Args:
        masses: attention on each image's visual tokens.
        tokens: how many visual tokens each image has.
        target: index of the image asked about.

    Returns:
        In 0..1; None where nothing was looked at or an image has no visual token.

    >>> sequence_ratio([0.2, 0.2], [10, 30], 0)
    0.75
    """
    if min(tokens) <= 0:
        return None
    means = [mass / count for mass, count in zip(masses, tokens, strict=True)]
    total = sum(means)
    return means[target] / total if total > 0 else None


def region_ratio(region_mass: float, image_mass: float) -> float | None:
    """Attention within the target's box over attention on the whole picture; None where the picture was not looked at.

    >>> region_ratio(0.1, 0.4)
    0.25
    """
    return min(region_mass / image_mass, 1.0) if image_mass > 0 else None
