"""Following one sample through scoring, or one key of a pipeline.yaml through `mia run`, stays a short walk."""

from __future__ import annotations

from house import walks

ENTERED, RETURNS, BACK_AND_FORTH = 7, 8, 0
"""Of one sample. These only go down."""
MEDIAN, MOST, TOGETHER = 13, 18, 70
"""Files entered by a key, from the command to every place where it is read, and by all keys together. These only go down."""


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


def test_one_key_of_a_pipeline_through_a_run_enters_few_files() -> None:
    walk = walks.keys_through_run()
    read = {
        "ScoreSettings.max_new_tokens",
        "SelectSettings.min_edit_distance",
        "TrainSettings.beta",
        "EvaluateSettings.per_bucket",
    }
    assert read <= set(walk.keys), "the keys of a stage were not followed"
    assert "mia_dpo_train/losses.py" in walk.keys["TrainSettings.beta"], "a key was not followed to where it acts"
    assert walk.counts[len(walk.counts) // 2] <= MEDIAN, walk.counts
    longest = max(walk.keys, key=walk.entered)
    assert walk.counts[-1] <= MOST, (longest, walk.reading, walk.keys[longest])
    assert len(walk.together) <= TOGETHER, sorted(walk.together)


def test_a_key_that_is_read_at_two_places_has_the_files_of_both() -> None:
    walk = walks.KeyWalks(["schema"], {"a": ["run", "score"], "b": ["run", "score", "stage", "train"]})
    assert (walk.counts, sorted(walk.together)) == ([3, 5], ["run", "schema", "score", "stage", "train"])
