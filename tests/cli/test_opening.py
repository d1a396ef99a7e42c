"""The report's first paragraph: every sentence follows from the figures, and too few of them say nothing."""

from __future__ import annotations

import pytest
from mia_cli.report.words.opening import RunFigures, opening
from mia_select.evaluation import Evaluation, Prediction, summarize


def asked(number: int, *, before: bool, after: bool | None, format_: str = "sequence", parts: int = 2) -> Prediction:
    return Prediction(
        id=f"{format_}-{number}", format=format_, parts=parts, answer="Red.", before="Red." if before else "Blue.",
        after=None if after is None else "Red." if after else "Blue.", correct_before=before, correct_after=after,
    )  # fmt: skip


def evaluation(several: str, single: str = "", *, grids: str = "", seen: int | None = 0) -> Evaluation:
    """One letter a question: `g`ained, `l`ost, `r`ight twice, `w`rong twice."""
    states = {"g": (False, True), "l": (True, False), "r": (True, True), "w": (False, False)}
    groups = (("sequence", 2, several), ("grid", 2, grids), ("single", 1, single))
    found = [
        asked(number, before=states[letter][0], after=states[letter][1], format_=name, parts=parts)
        for name, parts, letters in groups
        for number, letter in enumerate(letters)
    ]
    return summarize(found, seen_in_training=seen)


def test_what_went_up_is_told_with_its_interval() -> None:
    found = evaluation("g" * 30 + "r" * 40 + "w" * 30, "r" * 40, grids="w" * 50 + "r" * 50)
    told = opening(RunFigures(pairs=300, steps=57, evaluation=found))
    row = found.row("multi_image").difference
    assert row is not None
    assert told[0] == (
        "About several images right answers went up after training on 300 pairs, 57 steps: from 45.0 to 60.0 %, by +15.0 "
        f"points (with 95 % certainty {100 * row.low:+.1f} to {100 * row.high:+.1f})."
    )
    assert told[1] == "Of these, sequences (+30.0) went up; grids (+0.0) did not change measurably."
    assert told[2] == "About single images nothing changed (100.0 % of 40)."
    assert told[3].startswith("That is from 240 questions about pictures that training never saw")
    assert told[-1].startswith("Next: read some examples")


@pytest.mark.parametrize(
    ("several", "single", "first", "advice"),
    [
        ("g" * 30 + "r" * 30, "l" * 15 + "r" * 25, "went up", "keep single images"),
        ("l" * 30 + "r" * 30, "r" * 40, "went down", "rejected answers are wrong at all"),
        ("g" * 3 + "l" * 3 + "r" * 30 + "w" * 30, "r" * 40, "did not change measurably", "more pairs or a higher"),
        ("g" + "r" * 99, "r" * 40, "did not change measurably", "nearly all questions were answered rightly"),
        ("g" * 30 + "r" * 30, "", "went up", "read some examples"),
    ],
)
def test_advice_follows_from_what_went_up_and_what_did_not(several: str, single: str, first: str, advice: str) -> None:
    told = opening(RunFigures(pairs=300, steps=57, evaluation=evaluation(several, single)))
    assert f"right answers {first}" in told[0]
    assert advice in told[-1]


def test_where_nothing_can_be_learnt_or_measured_only_that_is_said() -> None:
    notes = ["nothing can be learnt from 4 pairs in 1 optimizer step: ..", "nothing can be measured: 0 of 20 answers .."]
    figures = RunFigures(4, 1, evaluation("w" * 20, seen=7), notes)
    assert opening(figures) == [
        "Nothing can be learnt from 4 pairs in 1 optimizer step: ...",
        "Nothing can be measured: 0 of 20 answers ...",
        f"Mind: {evaluation('w' * 20, seen=7).flattered}.",
    ]


def test_what_flatters_is_said() -> None:
    told = opening(RunFigures(300, 57, evaluation("g" * 30 + "r" * 30, seen=7)))
    assert "Mind: not held out: 7 of 60 samples show pictures that are among the training data" in " ".join(told)
    assert "training never saw" not in " ".join(told)


@pytest.mark.parametrize(("wrong", "words"), [(20, "The 50 points between them"), (1, "there is little to mend")])
def test_an_untrained_model_is_told_what_there_is_to_win_back(wrong: int, words: str) -> None:
    found = [asked(n, before=n >= wrong, after=None) for n in range(40)]
    found += [asked(n, before=True, after=None, format_="single", parts=1) for n in range(40)]
    assert words in " ".join(opening(RunFigures(evaluation=summarize(found))))


def test_pairs_alone_measure_nothing_yet() -> None:
    assert opening(RunFigures(pairs=300))[0].startswith("300 preference pairs made. Nothing is measured yet")
