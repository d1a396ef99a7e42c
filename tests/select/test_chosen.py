"""Which answer is chosen: the row's, or the model's own about the target alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mia_augment.records import Dropped, PreferencePair, ScoredSample
from mia_select import SelectSettings, select

MakeScored = Callable[..., ScoredSample]

RED, BLUE = "The color is red.", "The color is blue."
IDS = [7, 8, 2]


def one(sample: ScoredSample, **settings: object) -> PreferencePair | Dropped:
    (found,) = select([sample], SelectSettings.model_validate({"attention": False, **settings}))
    return found


def chosen(sample: ScoredSample, **settings: object) -> tuple[str, list[int] | None]:
    found = one(sample, **settings)
    assert isinstance(found, PreferencePair), found
    return found.chosen, found.chosen_ids


def test_own_answers_come_with_their_tokens(make_scored: MakeScored) -> None:
    right = make_scored(answer=RED, own="Color: red", own_ids=IDS, response=BLUE)
    same = make_scored(answer=RED, own="the color is red", own_ids=IDS, response=BLUE)
    assert chosen(right) == (RED, None)
    assert chosen(right, chosen="own") == ("Color: red", IDS)
    assert chosen(same, chosen="own_if_right") == ("the color is red", IDS)
    assert chosen(right, chosen="own_if_right") == (RED, None)


def test_an_answer_like_the_models_own_is_right_whatever_the_row_says(make_scored: MakeScored) -> None:
    sample = make_scored(answer=RED, own=BLUE, own_ids=IDS, response="the color is blue")
    assert one(sample, chosen="own") == Dropped(id="a", format="sequence", parts=2, rule="correct", value="the color is blue")
    assert chosen(sample) == (RED, None)


@pytest.mark.parametrize("calibrate", [None, "auto"])
def test_rows_without_an_answer_give_pairs_by_the_models_own(make_scored: MakeScored, calibrate: str | None) -> None:
    sample = make_scored(answer="", own=RED, own_ids=IDS, response=BLUE)
    for kind in ("own", "confusion"):
        asked = sample.model_copy(update={"confusions": [None, BLUE]})
        found = one(asked, chosen="own", rejected=kind, calibrate=calibrate, attention=True)
        assert isinstance(found, PreferencePair), found
        assert (found.chosen, found.rejected) == (RED, BLUE)
    for wanted in ("ground_truth", "own_if_right"):
        found = one(sample, chosen=wanted, calibrate=calibrate, attention=True)
        assert isinstance(found, Dropped)
        assert (found.rule, found.value) == ("no_chosen", "the row has no answer")


def test_what_was_not_asked_is_told(make_scored: MakeScored) -> None:
    found = one(make_scored(), chosen="own")
    assert isinstance(found, Dropped)
    assert (found.rule, found.value) == ("no_chosen", "scored without own_answer")
    assert chosen(make_scored(), chosen="own_if_right") == (RED, None)


def test_an_own_answer_that_is_none_is_dropped_as_such(make_scored: MakeScored) -> None:
    found = one(make_scored(own=" "), chosen="own")
    assert isinstance(found, Dropped)
    assert (found.rule, found.value) == ("degenerate", "own answer: empty")
