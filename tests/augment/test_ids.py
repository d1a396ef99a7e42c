"""Repeated ids are refused or renamed, never merged."""

from __future__ import annotations

import pytest
from mia_augment.checks.ids import check_unique, with_unique_ids
from mia_augment.errors import DataError
from mia_augment.records import Region, Sample, Source


def samples(*ids):
    return [
        Sample(
            id=name,
            format="single",
            images=["a.png"],
            prompt=f"<image>\n{number}",
            answer="x",
            regions=[Region(image=0, label="a")],
            target=0,
            source=Source(ids=["a"], paths=["a.png"], question=str(number)),
        )
        for number, name in enumerate(ids)
    ]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "b", "a"], ["a", "a#2", "b", "a#3"]),
        (["a", "a", "a#2"], ["a", "a#3", "a#2"]),  # a name that stands there already is not taken
        (["a#2", "a#2", "a", "a"], ["a#2", "a#2#2", "a", "a#3"]),
    ],
)
def test_the_first_keeps_its_name_and_the_others_get_free_ones(ids, expected):
    given = samples(*ids)
    renamed, count = with_unique_ids(given)
    assert [record.id for record in renamed] == expected
    assert [record.prompt for record in renamed] == [record.prompt for record in given]
    assert count == sum(first != second for first, second in zip(ids, expected, strict=True))


def test_repeats_are_refused_with_their_number():
    check_unique(["a", "b"], "x.jsonl")
    with pytest.raises(DataError, match=r"x\.jsonl: expected unique ids, got 'b' more than once \(2 such ids\).*its own id"):
        check_unique(["a", "b", "b", "b", "c", "c"], "x.jsonl")
