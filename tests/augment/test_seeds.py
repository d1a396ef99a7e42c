"""What was drawn by earlier versions is drawn again."""

from __future__ import annotations

import hashlib

import pytest
from mia_augment.seeds import hash64, seed_from


def test_a_seed_is_a_hash_of_its_parts():
    expected = hashlib.blake2b("5\0é\0('grid', 4)".encode(), digest_size=8).digest()
    assert seed_from(5, "é", ("grid", 4)) == int.from_bytes(expected, "little")
    assert seed_from(5, "é", b"x") == hash64(b"5", "é".encode(), b"x")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"bits": 128, "algorithm": "sha256"}, 238910994137107728174943684909996977905),
        ({"separator": b"\\0", "order": "big"}, 9374335192660272594),
        ({"bits": 32, "algorithm": "sha256", "separator": b"/", "order": "big"}, 4168501403),
        ({"algorithm": "sha256", "separator": b"/", "order": "big"}, 17903577202899798059),
    ],
    ids=["noise", "choice of pairs", "dropout", "held-out pairs"],
)
def test_the_draws_of_earlier_versions(parameters, expected):
    assert seed_from(7, "a", "b", **parameters) == expected


def test_parts_are_told_apart():
    assert len({seed_from(1, "2"), seed_from(12), seed_from("1", "2", ""), seed_from(2, "1")}) == 4
