"""The rules that compare with the pairs made so far: `duplicate` and `per_image`."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter

import numpy as np

from mia_select.rules.candidate import PairCandidate
from mia_select.settings import SelectSettings

BUFFER = 1 << 15
"""Keys held in a set before they are merged into the sorted array."""
_MASK = (1 << 64) - 1


class Duplicates:
    """Of pairs with the same id, or the same question, pictures and answers, the first is kept."""

    def __init__(self, settings: SelectSettings) -> None:
        self._ids, self._contents = KeySet(), KeySet()

    def refuses(self, candidate: PairCandidate) -> str | None:
        if hash(candidate.id) in self._ids:
            return "id"
        return "content" if _content(candidate) in self._contents else None

    def note(self, candidate: PairCandidate) -> None:
        self._ids.add(hash(candidate.id))
        self._contents.add(_content(candidate))


def _content(candidate: PairCandidate) -> int:
    sample, others = candidate.sample, candidate.other_images or ()
    return hash((sample.prompt, *sample.images, *others, *sample.source.paths, candidate.chosen.text, candidate.rejected))


class PairsPerImage:
    """Of each source picture the first `per_image` pairs are kept."""

    def __init__(self, settings: SelectSettings) -> None:
        self._limit = settings.per_image
        self._pairs: Counter[str] = Counter()

    def refuses(self, candidate: PairCandidate) -> str | None:
        if self._limit is None or candidate.joins is not None:
            return None
        path = _target_picture(candidate)
        return path if self._pairs[path] >= self._limit else None

    def note(self, candidate: PairCandidate) -> None:
        if self._limit is not None and candidate.joins is None:
            self._pairs[_target_picture(candidate)] += 1


def _target_picture(candidate: PairCandidate) -> str:
    sample, paths = candidate.sample, candidate.sample.source.paths
    return paths[sample.target] if sample.target < len(paths) else sample.images[0]


class KeySet:
    """A set of 64-bit keys in 8 bytes each; a Python set takes about 70.

    >>> keys = KeySet()
    >>> keys.add(hash("a")), keys.add(hash("b")), keys.add(hash("a"))
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
