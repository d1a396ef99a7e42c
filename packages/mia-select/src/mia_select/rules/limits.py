"""The rules that need to see all pairs before the first can be decided: `balance` and `max_pairs`."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile

import numpy as np
from mia_augment import Dropped, PreferencePair

from mia_select.draws import stable_key
from mia_select.settings import SelectSettings

IN_MEMORY = 1 << 23
"""Bytes of records that wait in memory; more of them wait in a temporary file."""
PAIR, DROP = b"+", b"-"

BalanceGroup = tuple[str | int, ...]


def limited(records: Iterable[PreferencePair | Dropped], settings: SelectSettings) -> Iterator[PreferencePair | Dropped]:
    """The records in their order, pairs beyond the limits turned into drops. 8 bytes a pair stay in memory."""
    keys: dict[BalanceGroup, array[int]] = defaultdict(lambda: array("Q"))
    with SpooledTemporaryFile(IN_MEMORY) as waiting:
        for record in records:
            if isinstance(record, PreferencePair):
                keys[_group(record, settings)].append(stable_key(settings.seed, record.id))
            waiting.write((PAIR if isinstance(record, PreferencePair) else DROP) + record.model_dump_json().encode() + b"\n")
        limits = _Limits(settings, keys)
        waiting.seek(0)
        for line in waiting:
            if line.startswith(DROP):
                yield Dropped.model_validate_json(line[1:])
            else:
                yield limits.decide(PreferencePair.model_validate_json(line[1:]))


class _Limits:
    """The largest key that each group, and the whole, may still use; keys are random numbers made of seed and id."""

    def __init__(self, settings: SelectSettings, keys: dict[BalanceGroup, array[int]]) -> None:
        self._settings = settings
        arrays = {group: np.sort(np.frombuffer(values, dtype=np.uint64)) for group, values in keys.items()}
        if settings.balance and arrays:
            size = min(map(len, arrays.values()))
            arrays = {group: values[:size] for group, values in arrays.items()}
        self._groups = {group: int(values[-1]) for group, values in arrays.items()}
        everything = np.sort(np.concatenate(list(arrays.values()))) if arrays else np.empty(0, dtype=np.uint64)
        cut = settings.max_pairs
        self._last = int(everything[cut - 1]) if cut is not None and cut < len(everything) else None

    def decide(self, pair: PreferencePair) -> PreferencePair | Dropped:
        """The pair, or the rule that drops it."""
        group = _group(pair, self._settings)
        key = stable_key(self._settings.seed, pair.id)
        value: float | str
        if key > self._groups[group]:
            rule, value = "balance", "/".join(map(str, group))
        elif self._last is not None and key > self._last:
            rule, value = "max_pairs", float(self._settings.max_pairs or 0)
        else:
            return pair
        return Dropped(id=pair.id, format=pair.format, parts=len(pair.regions), rule=rule, value=value)


def _group(pair: PreferencePair, settings: SelectSettings) -> BalanceGroup:
    values: dict[str, BalanceGroup] = {
        "format": (pair.format,),
        "parts": (pair.format, len(pair.regions)),
        "target": (pair.target,),
    }
    return tuple(value for key in settings.balance for value in values[key])
