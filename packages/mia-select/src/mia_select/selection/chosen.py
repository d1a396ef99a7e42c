"""The chosen side of a pair: the ground truth, or what the model itself answers about the target alone."""

from __future__ import annotations

from typing import NamedTuple

from mia_augment import ScoredSample, same_answer

from mia_select.rules.ratios import Glance
from mia_select.settings import SelectSettings


class ChosenText(NamedTuple):
    """The text to be preferred, if there is one."""

    text: str
    own: bool = False
    """Whether it is in the model's own words."""
    missing: str | None = None
    """Why there is none."""


def chosen_text(sample: Glance, settings: SelectSettings) -> ChosenText:
    """What `settings.chosen` takes for the right answer to a sample.

    `own_if_right` prefers the model's words where they say the same as the ground truth, and the ground truth elsewhere; it has
    to know that one.
    """
    truth, own = sample.answer.strip(), sample.own_answer
    if settings.chosen == "own" or (settings.chosen == "own_if_right" and truth and own and same_answer(own, truth)):
        return ChosenText(own, own=True) if own is not None else ChosenText("", missing="scored without own_answer")
    return ChosenText(sample.answer) if truth else ChosenText("", missing="the row has no answer")


def chosen_ids(sample: ScoredSample, chosen: ChosenText) -> list[int] | None:
    """The tokens that the model emitted for the chosen text; None: it is not the model's own."""
    return sample.own_answer_ids if chosen.own else None
