"""What pairs contrast (answers, pictures) and what the losses ask for: told apart before a model runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mia_augment import DataError, PreferencePair

from mia_dpo_train.settings import TrainSettings

logger = logging.getLogger(__name__)


def check_contrasts(pairs: Sequence[PreferencePair], settings: TrainSettings) -> None:
    """Say how many pairs a loss has nothing to do with.

    Raises:
        DataError: a loss contrasts pictures, and no pair has other ones.
    """
    missing = sum(pair.rejected_images is None for pair in pairs)
    if settings.contrasts_pictures and missing == len(pairs):
        raise DataError(
            f"the loss image expected pairs with rejected_images, none of {len(pairs)} has them; select with `rejected: image` "
            "or `other_picture: companion`, or leave image out of train.loss"
        )
    if settings.contrasts_pictures and missing:
        logger.warning("%d of %d pairs have no rejected_images: the loss image adds 0 for them", missing, len(pairs))
    with_answers = sum(bool(pair.rejected_answers) and pair.rejected_images is not None for pair in pairs)
    if not settings.contrasts_pictures and with_answers:
        logger.warning(
            "%d of %d pairs have rejected_images, which loss %s does not look at; add {name: image} to train.loss to use them",
            with_answers,
            len(pairs),
            ", ".join(settings.preference_terms),
        )


def with_what_is_used(pairs: Sequence[PreferencePair], settings: TrainSettings) -> list[PreferencePair]:
    """The pairs without other pictures where no loss looks at them; those that contrast nothing else stay, and are refused."""
    if settings.contrasts_pictures:
        return list(pairs)
    return [pair.model_copy(update={"rejected_images": None}) if pair.rejected_answers else pair for pair in pairs]


def contrast_problem(pair: PreferencePair, settings: TrainSettings) -> str | None:
    """Why the losses can learn nothing from a pair; None: they can."""
    if pair.rejected_answers or settings.contrasts_pictures:
        return None
    named = ", ".join(settings.preference_terms)
    return f"pictures alone: its answers are the same under other pictures, and loss {named} compares answers; add image"
