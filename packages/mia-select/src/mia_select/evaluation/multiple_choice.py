"""Multiple-choice questions: finding the options, reading an answer, choosing by likelihood."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mia_augment import Record, normalize_answer, same_answer

_MARK = re.compile(r"(?:(?<=\s)|^)(?:\(([A-Z])\)|([A-Z])[.):])\s+", re.MULTILINE)
_LETTER = re.compile(r"^\W*([A-Z])(?:\W|$)")
_STATED = re.compile(r"\b(?i:answer|option|choice)\b(?:\s+is)?\s*:?\s*\(?([A-Z])\b")


class Choices(Record):
    """A question with lettered options."""

    question: str
    """What stands before the options."""
    options: dict[str, str]
    """Letter -> text, in their order from A."""

    def letter(self, response: str) -> str | None:
        """The option that a response names: by its letter, or by its text alone; None: neither, or not only one.

        >>> choices = find_choices("What is it? A. a dog B. a cat")
        >>> choices.letter("The answer is (B)."), choices.letter("A cat"), choices.letter("Nothing")
        ('B', 'B', None)
        """
        text = response.strip()
        by_text = [letter for letter, option in self.options.items() if same_answer(text, option)]
        if len(by_text) == 1:
            return by_text[0]
        found = _LETTER.match(text) or _STATED.search(text)
        if found and found[1].upper() in self.options and not _starts_a_sentence(text, found):
            return found[1].upper()
        normal = f" {normalize_answer(text)} "
        within = [letter for letter, option in self.options.items() if f" {normalize_answer(option)} " in normal]
        return within[0] if len(within) == 1 else None


def find_choices(prompt: str) -> Choices | None:
    """The options of a prompt (`A. ..`, `(A) ..`, `A) ..`, on lines of their own or in a row); None: it has none.

    Letters must run from A without a gap; what follows the last option on a later line is no part of it.
    """
    marks = list(_MARK.finditer(prompt))
    for first in range(len(marks)):
        run = _run_from_a(marks[first:])
        if len(run) >= 2:
            ends = [mark.start() for mark in run[1:]] + [len(prompt)]
            texts = [prompt[mark.end() : end].strip() for mark, end in zip(run, ends, strict=True)]
            texts[-1] = texts[-1].split("\n")[0].strip()
            options = {_letter(mark): text.rstrip(",;") for mark, text in zip(run, texts, strict=True)}
            return Choices(question=prompt[: run[0].start()].strip(), options=options)
    return None


@dataclass(frozen=True)
class Alternatives:
    """What a model may answer to a multiple-choice question, for `most_likely`."""

    texts: list[str]
    """One for each option, from A, in the way of the ground truth."""
    by: Literal["sum", "mean"]


def alternatives(prompt: str, answer: str) -> Alternatives | None:
    """The options as the ground truth would write them: spelled out, or by letter; None: it names none of the prompt's.

    >>> alternatives("What is it? A. a dog B. a cat", "B")
    Alternatives(texts=['A', 'B'], by='sum')
    >>> alternatives("What is it? A. a dog B. a cat", "a cat")
    Alternatives(texts=['a dog', 'a cat'], by='mean')
    """
    choices = find_choices(prompt)
    named = choices.letter(answer) if choices else None
    if choices is None or named is None:
        return None
    if same_answer(answer, choices.options[named]):
        return Alternatives(list(choices.options.values()), "mean")
    bare = re.sub(r"\W", "", answer) == named
    return Alternatives([answer.strip().replace(named, letter) if bare else letter for letter in choices.options], "sum")


def most_likely(
    logps: Sequence[float], lengths: Sequence[int] | None = None, *, by: Literal["sum", "mean"] = "sum"
) -> int | None:
    """Index of the option that the model holds most likely; None where two are exactly equal: nothing is chosen.

    Args:
        logps: sum of the log-probs (nats) of each option's tokens after the prompt.
        lengths: number of those tokens; needed for `mean`, which does not punish longer options.
        by: `sum` for letters, `mean` for options spelled out in different lengths.

    Raises:
        ValueError: no option, lengths that don't fit, or a log-prob that is no number.
    """
    if not len(logps) or any(value != value for value in logps):
        raise ValueError(f"expected the log-prob of every option, got {list(logps)}")
    scores = list(logps)
    if by == "mean":
        if lengths is None or len(lengths) != len(logps) or min(lengths) < 1:
            raise ValueError(f"expected a length of 1 or more for each of the {len(logps)} options, got {lengths}")
        scores = [value / length for value, length in zip(logps, lengths, strict=True)]
    best = max(scores)
    return scores.index(best) if scores.count(best) == 1 else None


def same_choice(response: str, answer: str, choices: Choices) -> bool:
    """Whether a response names the option that the ground truth names (either by letter or by text)."""
    said = choices.letter(response)
    return said is not None and said == choices.letter(answer)


def _letter(mark: re.Match[str]) -> str:
    return mark[1] or mark[2]


def _run_from_a(marks: list[re.Match[str]]) -> list[re.Match[str]]:
    """Marks A, B, C .. in order, from the first one; others between them are skipped."""
    run: list[re.Match[str]] = []
    for mark in marks:
        expected = chr(ord("A") + len(run))
        if _letter(mark) == expected:
            run.append(mark)
        elif not run:
            break
    return run


def _starts_a_sentence(text: str, found: re.Match[str]) -> bool:
    """Whether the letter is an article or a pronoun (`A dog`, `I see`) rather than an option."""
    rest = text[found.end(1) :]
    return found.re is _LETTER and found[1] in "AI" and bool(re.match(r"\s+\w", rest))
