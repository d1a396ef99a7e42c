"""Errors that a person can act on."""

from __future__ import annotations


class MiaError(Exception):
    """Base of every error that MIA raises on purpose: its message is meant for the user, whole.

    The message says what was expected, what was found, which record or file it is about, and how to mend it.
    """


class ConfigError(MiaError):
    """A setting is unknown, out of range or contradicts another."""


class DataError(MiaError):
    """A file, a record or a picture is missing, damaged or of another kind than expected."""


class ModelError(MiaError):
    """A model or its processor cannot be used for what was asked."""


_MEMORY_WORDS = ("out of memory", "can't allocate memory", "alloc_failed")
"""Of an allocator of a GPU, of one of the CPU, and of a library of kernels that found no room for what it works in."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine ran out of memory, by torch or by a library that it calls."""
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _MEMORY_WORDS)
