from __future__ import annotations

import random
import sys

import pytest
from mia_select.rules import duplicates
from mia_select.rules.duplicates import KeySet


def test_it_agrees_with_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BUFFER", 7)
    generator, keys, plain = random.Random(0), KeySet(), set[int]()
    for _ in range(3000):
        key = generator.randrange(2000) * (2**64 - 1) // 1999
        assert keys.add(key) == (key not in plain)
        plain.add(key)
        probe = generator.randrange(2**64)
        assert (probe in keys) == (probe in plain)
    assert len(keys) == len(plain)
    assert all(key in keys for key in plain)


def test_negative_hashes_are_keys_too() -> None:
    keys = KeySet()
    assert keys.add(-1)
    assert not keys.add(-1)
    assert not keys.add(2**64 - 1)


def test_a_key_takes_about_eight_bytes() -> None:
    keys = KeySet()
    for key in range(300_000):
        keys.add(key * 0x9E3779B97F4A7C15)
    assert len(keys) == 300_000
    assert sys.getsizeof(keys._sorted) + sys.getsizeof(keys._recent) < 300_000 * 8 + 3_000_000
