"""Pairs from which nothing right can be learnt are told from the record alone."""

from __future__ import annotations

import pytest
from mia_augment.checks.pair_checks import END_TOKENS, pair_problem, without_end_tokens
from mia_augment.records import PreferencePair, Region, Scores


def pair(**changes):
    given = {
        "id": "p",
        "format": "single",
        "images": ["a.png"],
        "prompt": "<image>\nWhat?",
        "chosen": "A cat.",
        "rejected": "A dog.",
        "scores": Scores(),
        "target": 0,
        "regions": [Region(image=0, label="a")],
    }
    return PreferencePair.model_validate({**given, **changes})


@pytest.mark.parametrize("changes", [{}, {"scores": Scores(ratio=0.5)}, {"chosen": "A cat. "}, {"rejected": "a < s > dog"}])
def test_sound_pairs_pass(changes):
    assert pair_problem(pair(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"chosen": ""}, "empty answer: expected text as the chosen"),
        ({"rejected": " \n\t"}, "empty answer: expected text as the rejected"),
        ({"rejected": "A cat."}, "same answers: chosen and rejected are both 'A cat.'"),
        ({"rejected": "\nA cat. "}, "same answers"),
        ({"chosen": "A cat.</s>"}, "end token: the chosen answer holds '</s>'"),
        ({"rejected": "A dog.<|im_end|>\n"}, "end token: the rejected answer holds '<|im_end|>'"),
        ({"rejected": "A dog.<|im_end|>\n<|im_start|>user\nAnd?"}, "end token"),
        ({"chosen": "An <image>"}, "placeholder"),
        ({"scores": Scores(perplexity=float("nan"))}, "score: expected a finite number or null as perplexity, got nan"),
        ({"scores": Scores(ratio=float("-inf"))}, "score: expected a finite number or null as ratio, got -inf"),
    ],
)
def test_others_are_told_with_their_reason(changes, kind):
    assert pair_problem(pair(**changes)).startswith(kind)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("A cat.", "A cat."),
        ("A cat. ", "A cat. "),
        ("A cat.</s>", "A cat."),
        ("A cat. <|im_end|>\n<|endoftext|>\n", "A cat."),
        ("</s>", ""),
        ("</s> is how a text ends", "</s> is how a text ends"),
    ],
)
def test_end_tokens_are_taken_off_the_end_alone(text, left):
    (found,), count = without_end_tokens([pair(chosen=text)])
    assert (found.chosen, found.rejected) == (left, "A dog.")
    assert count == (text != left)


def test_further_end_tokens_can_be_named():
    odd = pair(chosen="A cat.[STOP]")
    assert pair_problem(odd) is None
    assert pair_problem(odd, END_TOKENS | {"[STOP]"}).startswith("end token")
