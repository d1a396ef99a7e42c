"""The rules about format and texts alone: a wanted format, both answers present, a short ground truth, a wrong answer."""

from __future__ import annotations

from mia_augment import normalize_answer

from mia_select.rules.candidate import Candidate
from mia_select.settings import SelectSettings


def unwanted_format(candidate: Candidate, settings: SelectSettings) -> str | None:
    return None if candidate.format in settings.formats else candidate.format


def no_chosen(candidate: Candidate, settings: SelectSettings) -> str | None:
    return candidate.chosen.missing


def answer_too_long(candidate: Candidate, settings: SelectSettings) -> float | None:
    limit = settings.max_answer_chars
    length = len(candidate.chosen.text)
    return float(length) if limit is not None and length >= limit else None


def no_confusion(candidate: Candidate, settings: SelectSettings) -> str | None:
    return candidate.missing if candidate.rejected is None and not candidate.blocked else None


def no_blocked(candidate: Candidate, settings: SelectSettings) -> str | None:
    return candidate.missing if candidate.rejected is None and candidate.blocked else None


def no_other_picture(candidate: Candidate, settings: SelectSettings) -> str | None:
    return candidate.missing if candidate.contrast == "pictures" else None


def correct(candidate: Candidate, settings: SelectSettings) -> str | None:
    if candidate.contrast == "pictures":
        return None
    if candidate.right is None:
        candidate.right = is_right(candidate.chosen.text, candidate.rejected or "")
    return candidate.rejected if candidate.right else None


def is_right(answer: str, text: str) -> bool:
    """Whether a text says the same as the answer that is taken for right."""
    return text == answer or normalize_answer(text) == normalize_answer(answer)
