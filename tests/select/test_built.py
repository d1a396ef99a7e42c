"""Rejected answers built of a sample's own parts: values by hand."""

from __future__ import annotations

from mia_augment.records import Dropped, PreferencePair, ScoredSample
from mia_select.selection.selector import Selector
from mia_select.settings import SelectSettings

ANSWERS = ["The color is red.", "The color is blue.", "The color is green."]
SETTINGS = SelectSettings(rejected="built", min_perplexity=None)


def results(scored, settings=SETTINGS):
    selector = Selector(settings)
    return list(selector.run(scored)), selector.report()


def about_several(make_scored, kind: str, answer: str, named: list[int], **changed) -> ScoredSample:
    """A scored sample of three pictures whose question is about several of them."""
    sample = make_scored(kind, parts=3, answers=ANSWERS, ratio=None, **changed)
    return sample.model_copy(update={"format": kind, "named": named, "answer": answer})


def test_another_picture_s_answer_is_rejected_and_no_model_is_needed(make_scored):
    sample = make_scored("a", parts=3, answers=ANSWERS, response="", perplexity=None, ratio=None)
    [pair], report = results([sample], SETTINGS.model_copy(update={"attention": False}))
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.rejected_ids) == ("The color is red.", None)
    label = {"The color is blue.": "Image2", "The color is green.": "Image3"}[pair.rejected]
    assert pair.id == f"a~{label}"
    assert report.pairs == report.candidates == 1


def test_the_attention_rule_does_not_apply_to_what_is_built(make_scored):
    [pair], _ = results([make_scored("a", parts=3, answers=ANSWERS, ratio=0.99)])
    assert isinstance(pair, PreferencePair)


def test_several_built_answers_of_one_sample_make_several_pairs(make_scored):
    found, _ = results([make_scored("a", parts=3, answers=ANSWERS)], SETTINGS.model_copy(update={"confusions_per_sample": 9}))
    assert sorted(pair.id for pair in found) == ["a~Image2", "a~Image3"]


def test_where_nothing_can_be_built_the_sample_is_counted_under_its_rule(make_scored):
    unknown = make_scored("a", parts=3, answers=["The color is red.", None, None])
    same = make_scored("b", parts=2, answers=["The color is red.", "the color is RED"])
    found, report = results([unknown, same])
    assert [(record.rule, record.value) for record in found] == [
        ("no_confusion", "no wrong answer to build: the others are unknown or the same")
    ] * 2
    assert {rule.rule: rule.dropped for rule in report.rules if rule.dropped} == {"no_confusion": 2}


def test_the_model_s_own_answer_and_a_built_one_make_a_pair_each_but_never_the_same(make_scored):
    settings = SelectSettings(rejected="own_and_built", confusions_per_sample=9)
    found, _ = results([make_scored("a", parts=3, answers=ANSWERS, response="the color is blue")], settings)
    assert {pair.id: pair.rejected for pair in found} == {"a": "the color is blue", "a~Image3": "The color is green."}


def test_questions_about_several_pictures_are_judged_without_attention(make_scored):
    settings = SelectSettings(formats=["search"], rejected="own_and_built", confusions_per_sample=9)
    sample = about_several(make_scored, "search", "Image2", [0, 1, 2], response="Image3", target=1)
    found, _ = results([sample], settings)
    assert {record.id: record.rejected for record in found} == {"search": "Image3", "search~Image1": "Image1"}
    right = about_several(make_scored, "search", "Image2", [0, 1, 2], response="image2.", target=1)
    found, _ = results([right], settings.model_copy(update={"rejected": "own"}))
    assert [record.rule for record in found] == ["correct"]


def test_a_question_about_several_pictures_has_no_companions_answers(make_scored):
    sample = about_several(make_scored, "search", "Image2", [0, 1, 2])
    [dropped], _ = results([sample], SelectSettings(formats=["search"], rejected="confusion"))
    assert isinstance(dropped, Dropped)
    assert dropped.value == "a question about several pictures cannot be asked of one"


def test_captions_give_a_pair_for_each_way_of_being_wrong(make_scored):
    answer = "\n".join(f"Image{i + 1}: {text}" for i, text in enumerate(ANSWERS))
    settings = SETTINGS.model_copy(update={"formats": ["captions"], "confusions_per_sample": 3})
    found, _ = results([about_several(make_scored, "captions", answer, [0, 1, 2])], settings)
    wrong = {pair.id.split("~")[1]: pair.rejected for pair in found}
    assert wrong.keys() == {"swapped", "dropped", "shortened"}
    assert wrong["shortened"] == "Image1: The color.\nImage2: The color.\nImage3: The color."
    assert all(pair.chosen == answer != pair.rejected for pair in found)
