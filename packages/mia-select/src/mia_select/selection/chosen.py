"""The chosen side of a pair: the ground truth, or what the model itself answers about the target alone."""

from __future__ import annotations

from mia_augment import same_answer

from mia_select.rules.candidate import ChosenText
from mia_select.settings import SelectSettings


def chosen_text(ground_truth: str, own: str | None, settings: SelectSettings, response: str = "") -> ChosenText:
    """What `settings.chosen` takes for the right answer to a sample.

    `own_if_right` and `response_if_right` prefer the model's words where they say the same as the ground truth, and the ground
    truth elsewhere; they have to know that one.

    Args:
        ground_truth: the row's answer; empty: it has none.
        own: the model's answer about the target alone; None: it was not asked.
        response: its answer to the sample itself.
    """
    truth = ground_truth.strip()
    said = response if settings.chosen.startswith("response") else own
    if settings.chosen in ("own", "response") or (
        settings.chosen.endswith("_if_right") and truth and said and same_answer(said, truth)
    ):
        return ChosenText(said, own=True) if said is not None else ChosenText("", missing="scored without own_answer")
    return ChosenText(ground_truth) if truth else ChosenText("", missing="the row has no answer")
