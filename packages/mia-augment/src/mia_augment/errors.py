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
