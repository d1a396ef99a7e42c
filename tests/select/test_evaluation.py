from __future__ import annotations

from collections.abc import Callable

import pytest
from mia_augment.records import ScoredSample
from mia_select.evaluation.accuracy import Evaluation, Prediction, predict, summarize
from mia_select.evaluation.mistakes import mistake
from mia_select.statistics import wilson

MakeScored = Callable[..., ScoredSample]
RED, BLUE, GREEN = "The color is red.", "The color is blue.", "The color is green."


def prediction(name: str, format_: str, parts: int, before: str, after: str | None) -> Prediction:
    return Prediction.model_validate(
        {
            "id": name,
            "format": format_,
            "parts": parts,
            "answer": RED,
            "others": [BLUE],
            "before": before,
            "after": after,
            "correct_before": before == RED,
            "correct_after": None if after is None else after == RED,
        }
    )


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (RED, None),
        ("the color is RED", None),
        (BLUE, "other_image"),
        ("The color is blue", "other_image"),
        ("The color is yellow.", "else"),
        ("The color is red blue.", "mixed"),
        ("The color is .", "malformed"),
        ("", "malformed"),
        ("is color red.", "malformed"),
        ("It is yellow.", "malformed"),
        ("The color is <image>.", "malformed"),
    ],
)
def test_kinds_of_mistakes(response: str, kind: str | None) -> None:
    assert mistake(response, RED, [BLUE, GREEN]) == kind


def test_a_mix_takes_words_from_several_pictures() -> None:
    assert mistake("a red square", "a red circle", ["a blue square"]) == "mixed"
    assert mistake("a blue square", "a red circle", ["a blue square"]) == "other_image"
    assert mistake("a blue star", "a red circle", ["a blue square"]) == "else"
    assert mistake("a star", "a red circle", ["a blue square"]) == "else"


def test_answers_of_which_one_ends_or_begins_another_have_a_frame_like_any_others() -> None:
    assert mistake("green", "red", ["dark red"]) == "malformed"  # all known answers end in "red"
    assert mistake("bright red", "red", ["dark red"]) == "else"
    assert mistake("i see", "i see", ["i see cats"]) is None
    assert mistake("you see", "i see", ["i see cats"]) == "malformed"


def test_without_the_other_answers_only_degenerate_texts_are_malformed() -> None:
    assert mistake("It is yellow.", RED, []) == "else"
    assert mistake("It is yellow.", RED, ["the color is red"]) == "else"
    assert mistake("!" * 50, RED, []) == "malformed"


def test_a_prediction_knows_the_other_answers_from_the_sample(make_scored: MakeScored) -> None:
    sample = make_scored(parts=3, target=1, answers=[BLUE, RED, None])
    assert predict(sample, BLUE, "the color is red") == Prediction(
        id="a",
        format="sequence",
        parts=3,
        answer=RED,
        others=[BLUE],
        before=BLUE,
        after="the color is red",
        correct_before=False,
        correct_after=True,
    )


def test_a_multiple_choice_answer_is_right_by_letter_or_text(make_scored: MakeScored) -> None:
    sample = make_scored(answer="B").model_copy(update={"prompt": "<image><image>What is it?\nA. a dog\nB. a cat"})
    found = predict(sample, "The answer is (B).", "A cat.")
    assert (found.correct_before, found.correct_after) == (True, True)
    assert not predict(sample, "a dog").correct_before
    assert not predict(make_scored(answer="B"), "The answer is (B).").correct_before


def test_rows_are_counted_by_hand() -> None:
    evaluation = summarize(
        [
            prediction("1", "sequence", 2, RED, RED),
            prediction("2", "sequence", 2, BLUE, RED),
            prediction("3", "sequence", 3, BLUE, BLUE),
            prediction("4", "sequence", 3, GREEN, RED),
            prediction("5", "grid", 4, RED, GREEN),
            prediction("6", "single", 1, RED, RED),
        ]
    )
    assert [row.name for row in evaluation.rows] == [
        "sequence", "sequence/2", "sequence/3", "grid", "grid/4", "multi_image", "single",
    ]  # fmt: skip
    sequence = evaluation.row("sequence")
    assert (sequence.before.n, sequence.before.correct, sequence.before.rate) == (4, 1, 0.25)
    assert (sequence.before.low, sequence.before.high) == wilson(1, 4)
    assert sequence.after is not None
    assert sequence.after.correct == 3
    assert sequence.difference is not None
    assert (sequence.difference.mean, sequence.difference.better, sequence.difference.worse) == (0.5, 2, 0)
    assert sequence.mistakes_before == {"other_image": 2, "mixed": 0, "malformed": 0, "else": 1}
    assert sequence.mistakes_after == {"other_image": 1, "mixed": 0, "malformed": 0, "else": 0}
    assert evaluation.row("multi_image").before.n == 5
    assert evaluation.row("single").before.n == 1
    assert evaluation.n == 6


def test_one_model_alone_has_no_after() -> None:
    row = summarize([prediction("1", "grid", 2, RED, None)]).row("grid/2")
    assert (row.after, row.difference, row.mistakes_after) == (None, None, None)


def test_an_evaluation_survives_json() -> None:
    evaluation = summarize([prediction("1", "grid", 2, RED, BLUE), prediction("2", "single", 1, BLUE, RED)])
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_half_measured_and_repeated_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 have no answer after, e\.g\. '2'"):
        summarize([prediction("1", "grid", 2, RED, RED), prediction("2", "grid", 2, RED, None)])
    with pytest.raises(ValueError, match="'1' several times"):
        summarize([prediction("1", "grid", 2, RED, RED)] * 2)


def test_an_unknown_row_names_the_known() -> None:
    with pytest.raises(KeyError, match="there are grid, grid/2, multi_image"):
        summarize([prediction("1", "grid", 2, RED, RED)]).row("sequence")


def test_nothing_to_summarize_is_an_empty_table() -> None:
    assert summarize([]) == Evaluation(n=0, rows=[])
