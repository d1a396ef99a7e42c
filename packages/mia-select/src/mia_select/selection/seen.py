"""A set of 64-bit keys in 8 bytes each; a Python set takes about 70."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np

BUFFER = 1 << 15
"""Keys held in a set before they are merged into the sorted array."""
_MASK = (1 << 64) - 1


class SeenKeys:
    """Keys that were seen before.

    >>> seen = SeenKeys()
    >>> seen.add(hash("a")), seen.add(hash("b")), seen.add(hash("a"))
    (True, True, False)
    """

    def __init__(self) -> None:
        self._sorted: array[int] = array("Q")
        self._recent: set[int] = set()

    def __contains__(self, key: int) -> bool:
        key &= _MASK
        if key in self._recent:
            return True
        place = bisect_left(self._sorted, key)
        return place < len(self._sorted) and self._sorted[place] == key

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def add(self, key: int) -> bool:
        """Remember a key, of which the lowest 64 bits count; whether it was new."""
        if key in self:
            return False
        self._recent.add(key & _MASK)
        # As the array grows, so does the buffer: every key is moved a few times only.
        if len(self._recent) >= max(BUFFER, len(self._sorted) // 16):
            self._merge()
        return True

    def _merge(self) -> None:
        recent = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
        merged = np.concatenate([np.frombuffer(self._sorted, dtype=np.uint64), recent]) if self._sorted else recent
        merged.sort()
        self._sorted = array("Q")
        self._sorted.frombytes(merged.tobytes())
        self._recent.clear()
