from __future__ import annotations

import pytest
from mia_select.rules.attention import looks_elsewhere, threshold_for
from mia_select.settings import Thresholds
from pydantic import ValidationError

PAPER = [
    ("sequence", 2, 0.8), ("sequence", 3, 0.7), ("sequence", 4, 0.6), ("sequence", 5, 0.6),
    ("grid", 2, 0.7), ("grid", 3, 0.6), ("grid", 4, 0.5), ("grid", 6, 0.4), ("grid", 9, 0.3),
    ("pic_in_pic", 2, 0.8),
]  # fmt: skip


@pytest.mark.parametrize(("format_", "parts", "expected"), PAPER)
def test_defaults_are_the_papers(format_: str, parts: int, expected: float) -> None:
    assert threshold_for(format_, parts, Thresholds()) == expected


@pytest.mark.parametrize(
    ("format_", "parts", "expected"),
    [
        ("grid", 5, 0.45),
        ("grid", 7, 0.4 - 0.1 / 3),
        ("grid", 8, 0.4 - 0.2 / 3),
        ("grid", 12, 0.3),
        ("sequence", 9, 0.6),
        ("sequence", 1, 0.8),
    ],
)
def test_missing_numbers_are_interpolated_and_the_ends_held(format_: str, parts: int, expected: float) -> None:
    assert threshold_for(format_, parts, Thresholds()) == pytest.approx(expected)


def test_one_number_holds_for_all() -> None:
    table = Thresholds.model_validate({"grid": 0.25})
    assert threshold_for("grid", 2, table) == threshold_for("grid", 9, table) == 0.25


def test_a_single_image_has_no_threshold() -> None:
    assert threshold_for("single", 1, Thresholds()) is None


def test_only_sequences_are_kept_at_the_threshold() -> None:
    assert looks_elsewhere("sequence", 0.8, 0.8)
    assert not looks_elsewhere("grid", 0.8, 0.8)
    assert not looks_elsewhere("pic_in_pic", 0.8, 0.8)
    assert looks_elsewhere("grid", 0.79, 0.8)


@pytest.mark.parametrize("bad", [{"grid": {}}, {"grid": {2: 1.2}}, {"sequence": {0: 0.5}}, {"grids": 0.3}])
def test_impossible_tables_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Thresholds.model_validate(bad)


def test_a_format_that_is_not_the_papers_has_thresholds_too() -> None:
    assert threshold_for("strip", 5, Thresholds()) == pytest.approx(0.45)
    assert not looks_elsewhere("strip", 0.7, 0.7)
