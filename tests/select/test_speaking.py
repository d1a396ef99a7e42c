"""Which picture answers speak of, before and after: values worked by hand."""

from __future__ import annotations

import math

import pytest
from mia_augment.records import LogpAlone
from mia_augment.statistics import paired_mean_difference
from mia_select.evaluation import Prediction, Speaks, summarize
from mia_select.evaluation.mistakes import mistake
from mia_select.evaluation.speaking import answers_floor, speaking, speaks

TARGET, OTHER, NEITHER = (Speaks(share=s, about=a) for s, a in ((0.9, "target"), (0.2, "other_image"), (0.6, "neither")))


def alone(*per_token: float) -> LogpAlone:
    return LogpAlone(summed=[2 * logp for logp in per_token], per_token=list(per_token))


def test_an_answers_share_and_what_it_speaks_of() -> None:
    found = speaks(alone(math.log(0.3), math.log(0.1)), 0, None)  # two tokens: 0.09 against 0.01
    assert found is not None
    assert (found.share, found.about) == (pytest.approx(0.9), "target")
    other = speaks(alone(-2.0, -0.1), 0, -1.0)
    assert other is not None
    assert (other.share, other.about) == (pytest.approx(1 / (1 + math.exp(3.8))), "other_image")
    none = speaks(alone(-2.0, -1.5), 1, -1.0)
    assert none is not None
    assert none.about == "neither"
    assert speaks(alone(-0.1), 0, -1.0) is None
    assert speaks(LogpAlone(summed=[None, -1.0], per_token=[None, -0.5]), 0, None) is None
    assert answers_floor([alone(-0.1, -3.0)] * 9 + [alone(-1.9, -2.0)], [-0.1] * 20) == pytest.approx(-1.0)


def test_both_answers_of_a_sample_are_compared() -> None:
    found = speaking([OTHER, TARGET, NEITHER, None], [TARGET, TARGET, OTHER, TARGET])
    assert found is not None
    assert (found.n, found.before, found.after) == (3, 1, 2)
    assert found.difference is not None
    assert (found.difference.better, found.difference.worse) == (1, 0)
    assert found.share_before == pytest.approx((0.2 + 0.9 + 0.6) / 3)
    assert found.share_after == pytest.approx((0.9 + 0.9 + 0.2) / 3)
    assert found.share_difference is not None
    assert found.share_difference.mean == pytest.approx(0.1)
    before = speaking([OTHER, TARGET], None)
    assert before is not None
    assert (before.n, before.before, before.after, before.share_difference) == (2, 1, None, None)
    assert speaking([None], None) is None


def test_the_interval_of_a_mean_difference_is_the_bootstraps() -> None:
    found = paired_mean_difference([0.0] * 200, [0.0, 1.0] * 100)
    half = 1.96 * 0.5 / math.sqrt(200)
    assert (found.n, found.mean) == (200, 0.5)
    assert (found.low, found.high) == (pytest.approx(0.5 - half, abs=0.01), pytest.approx(0.5 + half, abs=0.01))
    with pytest.raises(ValueError, match="the same samples"):
        paired_mean_difference([0.0], [])


def test_what_a_free_answer_speaks_of_names_its_mistake() -> None:
    def kind(about: str | None, said: str = "a kind of reddish ring") -> str | None:
        return mistake(said, "red circle", ["blue square"], about)  # type: ignore[arg-type]

    wanted = {"target": "else", "other_image": "other_image", "mixed": "mixed", "neither": "neither", None: "else"}
    assert {about: kind(about) for about in wanted} == wanted
    assert kind("target", "blue square") == "other_image"  # word for word
    assert kind("target", "red circle") is None


def test_the_anatomy_counts_what_answers_speak_of_and_adds_up() -> None:
    said = [("red", TARGET), ("bluish", OTHER), ("green", NEITHER), ("some red", TARGET)]
    predictions = [
        Prediction(
            id=str(number), format="sequence", parts=2, answer="red", before=text, after="red", correct_before=text == "red",
            correct_after=True, speaks_before=about, speaks_after=TARGET,
        )
        for number, (text, about) in enumerate(said)
    ]  # fmt: skip
    row = summarize(predictions, agreement=True).row("sequence")
    assert row.mistakes_before == {"other_image": 1, "mixed": 0, "malformed": 0, "neither": 1, "else": 1}
    assert sum(row.mistakes_before.values()) == row.before.n - row.before.correct
    assert row.speaking is not None
    assert (row.speaking.before, row.speaking.after, row.before.correct) == (2, 4, 1)  # not mixed with equality


def test_predictions_of_what_was_not_measured_are_written_without_it() -> None:
    """So that files of rows with ground truths stay the same, byte for byte."""
    plain = Prediction(id="a", format="sequence", parts=2, answer="red", before="blue", correct_before=False)
    assert "speaks" not in plain.model_dump_json()
    assert Prediction.model_validate_json(plain.model_dump_json()) == plain
    about = plain.model_copy(update={"speaks_before": TARGET})
    assert Prediction.model_validate_json(about.model_dump_json()) == about
