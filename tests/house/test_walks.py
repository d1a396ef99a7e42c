"""Following one sample through scoring stays a short walk; the walk of a pipeline.yaml takes a whole run, so it has no test."""

from __future__ import annotations

from house import walks

ENTERED, RETURNS, BACK_AND_FORTH = 7, 8, 0
"""What is left to mend; these only go down."""


def test_one_sample_through_scoring_enters_few_files() -> None:
    walk = walks.sample_through_scoring()
    assert "mia_attention/measure/masses.py" in walk.path, "the sample was not followed to its ratio"
    assert walk.entered <= ENTERED, walk.path
    assert walk.returns <= RETURNS, walk.path
    assert len(walk.back_and_forth()) <= BACK_AND_FORTH, walk.path


def test_the_measure_counts_returns_and_files_between_which_a_reader_goes_back_and_forth() -> None:
    walk = walks.Walk(["a", "b", "a", "b", "c", "a"], functions=6, ran=9)
    assert (walk.entered, walk.returns, walk.back_and_forth()) == (3, 3, [("a", "b")])


def test_who_follows_nothing_enters_nothing() -> None:
    walk = walks.follow(lambda: walks.holds(1, bool), lambda value: False)
    assert (walk.entered, walk.functions) == (0, 0)
