"""Pictures and prompts that a model's processor cannot use: told from errors of the model, the machine and the program."""

from __future__ import annotations

from mia_augment.errors import DataError, MiaError, ModelError

_OF_OTHERS = (MiaError, NotImplementedError, RecursionError)
_OF_THE_RECORD = (ValueError, ArithmeticError, LookupError, AssertionError, RuntimeError, OSError, StopIteration)
"""Errors that processors raise at pictures and prompts that they cannot use; there is no common class."""
LONGEST_EXCERPT = 300
"""Characters of another library's message that are shown."""


class WrongTokens(ModelError):
    """A prompt has other visual tokens than those of its pictures: its text holds one, or the processor is not the model's."""


def refusal(error: Exception) -> str | None:
    """Why a record cannot be used, if an error is about the record; None: it is about the model, the machine or the program."""
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, WrongTokens):
        return f"the model's processor refuses it: {error}"
    if isinstance(error, _OF_OTHERS) or not isinstance(error, _OF_THE_RECORD):
        return None
    if _of_the_machine(error):
        return None
    text = " ".join(str(error).split())
    told = text if len(text) <= LONGEST_EXCERPT else text[:LONGEST_EXCERPT] + " ..."
    return f"the model's processor refuses it: {told or type(error).__name__}"


def _of_the_machine(error: Exception) -> bool:
    """Whether memory ran out, or a device failed (torch's own classes are not to be imported here)."""
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(
        sign in text for sign in ("out of memory", "can't allocate memory", "cuda error")
    )
