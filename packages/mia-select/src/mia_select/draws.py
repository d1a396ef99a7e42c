"""Random draws that depend on the seed and names alone: neither order nor other records change them."""

from __future__ import annotations

from mia_augment import seed_from


def stable_key(seed: int, *names: str) -> int:
    """64 random bits. A backslash and a zero join the names: with another separator old seeds would draw other pairs."""
    return seed_from(seed, *names, separator=rb"\0", order="big")
