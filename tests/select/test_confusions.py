from __future__ import annotations

from collections.abc import Callable

from mia_augment.records import Dropped, PreferencePair, ScoredSample
from mia_select import SelectSettings, select

MakeScored = Callable[..., ScoredSample]

RED, BLUE, GREEN = "The color is red.", "The color is blue.", "The color is green."


def results(sample: ScoredSample, **settings: object) -> list[tuple[str, str]]:
    found = select([sample], SelectSettings.model_validate(settings))
    return [(r.id, r.rejected) if isinstance(r, PreferencePair) else (r.id, r.rule) for r in found]


def test_a_companions_answer_may_be_rejected_even_where_the_model_was_right(make_scored: MakeScored) -> None:
    sample = make_scored(response=RED, ratio=0.99, perplexity=1.0, confusions=[None, BLUE])
    assert results(sample) == [("a", "correct")]
    assert results(sample, rejected="confusion") == [("a~Image2", BLUE)]
    assert results(sample, rejected="both") == [("a", "correct"), ("a~Image2", BLUE)]


def test_equal_answers_are_left_out(make_scored: MakeScored) -> None:
    assert results(make_scored(confusions=[None, "the color is RED"]), rejected="confusion") == [("a~", "no_confusion")]
    twice = make_scored(parts=3, confusions=[None, BLUE, "the color is blue"])
    assert results(twice, rejected="confusion", confusions_per_sample=2) == [("a~Image2", BLUE)]
    assert results(make_scored(response=BLUE, confusions=[None, BLUE]), rejected="both") == [
        ("a", BLUE),
        ("a~", "no_confusion"),
    ]


def test_as_many_companions_as_asked_for(make_scored: MakeScored) -> None:
    sample = make_scored(parts=3, target=1, confusions=[BLUE, None, GREEN])
    assert len(results(sample, rejected="confusion")) == 1
    assert sorted(results(sample, rejected="confusion", confusions_per_sample=5)) == [("a~Image1", BLUE), ("a~Image3", GREEN)]


def test_which_companion_is_random_but_fixed(make_scored: MakeScored) -> None:
    samples = [make_scored(f"s{i}", parts=3, confusions=[None, BLUE, GREEN]) for i in range(40)]
    settings = SelectSettings(rejected="confusion")
    first = [r.rejected for r in select(samples, settings) if isinstance(r, PreferencePair)]
    assert first == [r.rejected for r in select(samples, settings) if isinstance(r, PreferencePair)]
    assert 8 <= first.count(BLUE) <= 32


def test_scored_without_confusions_says_so(make_scored: MakeScored) -> None:
    (dropped,) = select([make_scored()], SelectSettings(rejected="confusion"))
    assert isinstance(dropped, Dropped)
    assert (dropped.rule, dropped.value) == ("no_confusion", "scored without confusions")


def test_post_selection_holds_for_companions_answers_and_their_scores_are_not_the_models(make_scored: MakeScored) -> None:
    assert results(make_scored(confusions=[None, "<image> "]), rejected="confusion") == [("a~Image2", "degenerate")]
    assert results(
        make_scored(confusions=[None, "x y z " * 5 + "and then some more words to come"]),
        rejected="confusion",
        max_length_ratio=3,
    ) == [("a~Image2", "length_ratio")]
    (pair,) = select([make_scored(confusions=[None, BLUE])], SelectSettings(rejected="confusion"))
    assert isinstance(pair, PreferencePair)
    assert pair.scores.perplexity is None
    assert pair.scores.ratio == 0.3
