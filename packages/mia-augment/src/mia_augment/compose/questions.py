"""Questions of single-image rows: what can be asked of one picture among several, and how to say which one is meant."""

from __future__ import annotations

import functools
import random
import re
from typing import TYPE_CHECKING

from mia_augment.compose.prompts import IMAGE, TEMPLATES

if TYPE_CHECKING:
    from mia_augment.formats import Format
    from mia_augment.settings import TemplateSettings

_PICTURE = re.compile(r"\b(?:image|picture|photograph|photo)(s?)(?:[ #]{0,3}(\d)|\b)")
_SEVERAL_BEFORE = re.compile(
    r"\b(?:compare|these|those|both|all|two|three|four|five|several|multiple|different|between the|which of the)"
    r"(?: of)?(?: the| these)?(?: \w+)? $"
)
_ONE_OF_SEVERAL = frozenset(
    {"which", "either", "each", "first", "second", "third", "fourth", "other", "another", "previous", "next"}
)


def speaks_of_several_images(question: str) -> bool:
    """Whether a question is about more than one picture, so that naming one of them would make nonsense.

    >>> speaks_of_several_images("What do these two images share?"), speaks_of_several_images("What is in the image?")
    (True, False)
    """
    text = question.lower()
    for match in _PICTURE.finditer(text):
        plural, number = match.groups()
        before = text[max(0, match.start() - 50) : match.start()]
        if number or (plural and _SEVERAL_BEFORE.search(before)):
            return True
        if not plural and _ONE_OF_SEVERAL.intersection(before.split()[-1:]):
            return True
    return False


def normal(text: str) -> str:
    """A text as far as it matters for being the same question or answer: case, spacing and a closing mark do not.

    >>> normal("What  color is it?") == normal("what color is it ?")
    True
    """
    return " ".join(text.lower().split()).rstrip(" .!?")


_OPENERS = """
    a about after all although among an and any are aren't around as at based be because before between briefly by can
    can't could couldn't did didn't do does doesn't don't during each either every for from given had has have having he
    her here his how if in inside is isn't it it's its just many may most much my near no not of on one only or other
    our out outside over please shall she should since so some such that the their them then there these they this those
    through to under until upon was wasn't we were what what's when where where's whether which while who who's whom whose
    why will with within without would wouldn't yes you your
    analyze answer ask assess assume break calculate caption categorize characterize choose classify clarify compare
    complete compose compute consider construct convert count create craft decide deduce define describe detail detect
    determine develop discover discuss draft draw elaborate enumerate estimate evaluate examine explain explore express
    extract fill find follow generate give guess help highlight identify illustrate imagine indicate infer inspect
    interpret judge know label let list locate look looking make mark mention name narrate note observe offer outline
    parse pick point predict present produce propose provide rank rate read reason recall recognize recount refer relate
    render rephrase reply report respond say select share show sketch solve specify state study suggest summarize tell
    think transcribe translate try use using verify view walk write
"""
_LOWERED = frozenset(_OPENERS.split())
_NAMES_TOO = frozenset({"will", "may", "mark", "bill", "rich", "frank", "grace", "hope", "art"})
"""Words that are also proper names: kept where a capitalised word follows."""
_FIRST_WORD = re.compile(r"([A-Z])([a-z]*(?:['’][a-z]+)?)(?![\w'’-])")


def lower_first(question: str) -> str:
    """A question as it stands behind a comma: the first letter lower-cased only where English would.

    Known sentence openers are lowered; names, acronyms and "I" keep their capital, and so does every unknown word.

    >>> lower_first("What color is it?"), lower_first("I see a dog, right?"), lower_first("USA or UK?"), lower_first("Paris?")
    ('what color is it?', 'I see a dog, right?', 'USA or UK?', 'Paris?')
    """
    match = _FIRST_WORD.match(question)
    if match is None:
        return question
    word = match.group().lower().replace("’", "'")
    if word not in _LOWERED:
        return question
    if word not in _NAMES_TOO and word != "a":
        return question[0].lower() + question[1:]
    rest = question[match.end() :].lstrip(" ")
    capital_follows = rest[:1].isupper() and not rest.startswith(("I ", "I'"))
    if (word in _NAMES_TOO and capital_follows) or (word == "a" and not rest[:1].islower() and not capital_follows):
        return question
    return question[0].lower() + question[1:]


def name_target(question: str, format: Format, label: str, templates: TemplateSettings, rng: random.Random) -> str:
    """The question with the words that say which picture it is about.

    Draws from `rng` once, but for a format without words, whose question stays as it is.
    """
    if format.words is None:
        return question
    chosen = getattr(templates, format.words) or TEMPLATES[format.words]
    start, end, continues = _split(chosen[int(rng.random() * len(chosen))])
    asked = lower_first(question) if continues else question
    return start.replace("{label}", label) + asked + end.replace("{label}", label)


@functools.lru_cache(1000)
def _split(template: str) -> tuple[str, str, bool]:
    """What stands before and behind the question, and whether the former leaves the sentence open."""
    start, end = template.split("{question}")
    return start, end, _continues(start)


def _continues(start: str) -> bool:
    """Whether what stands before a question leaves the sentence open."""
    text = start.rstrip()
    return bool(text) and text[-1] not in ".!?:\n"


def without_placeholder(text: str) -> str:
    """A turn's text without `<image>`, wherever it stood."""
    if IMAGE not in text:
        return text.strip()
    return "\n".join(filter(None, (part.strip() for part in text.split(IMAGE))))


_WHOLE = (
    r"(?:(?:the |an? )?(?:visual |main )?(?:contents?|key features|details|elements) of )?(?:the|this|that|an?|your)? ?"
    r"(?:(?:following|given|provided|subsequent|displayed|presented|above|below|attached) )?"
    r"(?:image|picture|photo|photograph|scene)(?:'s (?:contents?|key features|details|elements))?"
    r"(?: (?:provided|given|presented|displayed|attached|shown))?"
)
"""A picture as a whole, or what is in it."""
_CAPTION = re.compile(
    r"(?:please |can you |could you )?(?:briefly |concisely )?(?:"
    rf"(?:describe|summarize|caption|explain|narrate) (?:what (?:is|you see) (?:shown )?in )?{_WHOLE}"
    r"|(?:give|write|provide|create|generate|share|render|present|offer) (?:me )?(?:an? |the |your )?(?:[\w-]+,? ){0,5}?"
    rf"(?:description|caption|summary|interpretation|explanation|depiction|portrayal|account)(?: (?:of|for|about) {_WHOLE})?"
    rf"|what(?:'s| is| are| do you see| can you see)(?: shown| depicted| happening| going on)? in {_WHOLE}"
    r")(?:,? (?:in (?:great |more )?detail|in (?:a|one|few|a few) (?:short )?(?:sentences?|words)|concisely|briefly|shortly|"
    r"thoroughly|carefully|clearly|below|above|you see|as presented))*"
)


def asks_for_caption(question: str) -> bool:
    """Whether a question asks to describe its picture as a whole, in whatever words.

    >>> asks_for_caption("Provide a brief description of the given image."), asks_for_caption("Describe the dog in the image.")
    (True, False)
    """
    return _CAPTION.fullmatch(normal(question).replace("’", "'")) is not None
