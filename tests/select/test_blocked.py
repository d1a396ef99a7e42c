"""Answers given while the pictures do not see each other, as the rejected side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mia_augment.records import Dropped, PreferencePair, ScoredSample
from mia_select import Selector, SelectSettings
from pydantic import ValidationError

MakeScored = Callable[..., ScoredSample]
RED, BLUE = "The color is red.", "The color is blue."


def one(sample: ScoredSample, **settings: object) -> PreferencePair | Dropped:
    selector = Selector(SelectSettings.model_validate({"rejected": "blocked", **settings}))
    (found,) = selector.run([sample])
    report = selector.report()
    dropped = {rule.rule: rule.dropped for rule in report.rules if rule.dropped}
    assert (report.samples, report.candidates, report.pairs) == (1, 1, int(isinstance(found, PreferencePair)))
    assert dropped == ({} if isinstance(found, PreferencePair) else {found.rule: 1})
    return found


def with_blocked(sample: ScoredSample, text: str) -> ScoredSample:
    return sample.model_copy(update={"blocked_answer": text, "blocked_answer_ids": [4, 2], "response_ids": [3, 2]})


def test_the_blocked_answer_is_rejected_with_its_tokens_whatever_the_attention(make_scored: MakeScored) -> None:
    sample = with_blocked(make_scored(answer=RED, response="the color is red", ratio=0.99, perplexity=1.0), BLUE)
    plain = one(sample)
    assert isinstance(plain, PreferencePair)
    assert (plain.id, plain.chosen, plain.chosen_ids) == ("a~blocked", RED, None)
    assert (plain.rejected, plain.rejected_ids) == (BLUE, [4, 2])
    seeing = one(sample, chosen="response_if_right")
    assert isinstance(seeing, PreferencePair)
    assert (seeing.chosen, seeing.chosen_ids) == ("the color is red", [3, 2])


def test_a_wrong_response_is_not_chosen_where_the_truth_is_known(make_scored: MakeScored) -> None:
    sample = with_blocked(make_scored(answer=RED, response=BLUE), "The color is green.")
    found = [one(sample, chosen=chosen) for chosen in ("response_if_right", "response")]
    assert [(pair.chosen, pair.chosen_ids) for pair in found if isinstance(pair, PreferencePair)] == [
        (RED, None),
        (BLUE, [3, 2]),
    ]


def test_every_drop_has_its_reason(make_scored: MakeScored) -> None:
    def reason(sample: ScoredSample, **settings: object) -> tuple[str, object]:
        found = one(sample, **settings)
        assert isinstance(found, Dropped)
        return found.rule, found.value

    assert reason(make_scored()) == ("no_blocked", "scored without blocked_answer")
    assert reason(make_scored(format="grid")) == ("no_blocked", "a single picture: nothing to block")
    assert reason(with_blocked(make_scored(answer=RED), "the color is RED")) == ("correct", "the color is RED")
    assert reason(with_blocked(make_scored(answer=RED), " ")) == ("degenerate", "empty")
    assert reason(with_blocked(make_scored(answer=""), BLUE), chosen="response_if_right") == (
        "no_chosen",
        "the row has no answer",
    )


def test_calibration_has_nothing_to_look_at(make_scored: MakeScored) -> None:
    assert not SelectSettings(rejected="blocked", calibrate="auto").calibrates
    assert isinstance(one(with_blocked(make_scored(), RED + " yes"), calibrate="auto"), PreferencePair)


@pytest.mark.parametrize("rejected", ["own", "both"])
def test_both_sides_cannot_be_the_same_answer(rejected: str) -> None:
    with pytest.raises(ValidationError, match="both sides would be the same answer"):
        SelectSettings.model_validate({"chosen": "response", "rejected": rejected})
