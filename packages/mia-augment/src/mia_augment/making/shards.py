"""Shards: parts of one data set's samples that several processes or machines make at the same time, or one after another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from mia_augment.errors import ConfigError

SHARDS = "shards"
"""Folder of the finished shards, one folder each, until they are joined."""
_WRITTEN = re.compile(r"(\d{1,5})/(\d{1,5})")


class Shard(NamedTuple):
    """Which of how many shards."""

    number: int
    """From 1."""
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From what a person writes, such as ``2/8``: the second of eight.

        Raises:
            ConfigError: something else, or no such shard.
        """
        found = _WRITTEN.fullmatch(text.strip())
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or not 1 <= shard.number <= shard.of:
            raise ConfigError(f"shard {text!r}: expected i/n with i from 1 to n, such as 1/8 for the first of eight")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def share(self, total: int) -> range:
        """Which of so many things, counted from 0, are this shard's: a run of neighbours; all shards together have each once.

        >>> [list(Shard(number, 3).share(7)) for number in (1, 2, 3)]
        [[0, 1], [2, 3], [4, 5, 6]]
        """
        return range(total * (self.number - 1) // self.of, total * self.number // self.of)

    def folder(self, out: Path) -> Path:
        """Where its samples lie below the folder of all samples; names in the order of the shards."""
        return out / SHARDS / f"{self.number:05d}-of-{self.of:05d}"
