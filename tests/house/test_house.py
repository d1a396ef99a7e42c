"""The house stays in order: what `measure.py` counts must not get worse."""

from __future__ import annotations

import pytest
from house import measure

REPEATED = 0
CROWDED: set[str] = set()
"""What is left to mend; these only go down."""


def test_packages_import_each_other_through_doors_only() -> None:
    assert measure.imports_past_the_door() == []


def test_imports_form_a_star_around_mia_augment() -> None:
    assert measure.sideways_imports() == []


def test_no_file_name_stands_twice() -> None:
    assert measure.repeated_file_names() == {}


def test_no_folder_is_crowded() -> None:
    assert set(measure.crowded_folders()) <= CROWDED


def test_no_public_name_has_two_meanings() -> None:
    assert len(measure.repeated_names()) <= REPEATED


def test_a_module_imported_past_the_door_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure itself: without doors every import across packages is one too many."""
    monkeypatch.setattr(measure, "opened_by", lambda package: set())
    assert measure.imports_past_the_door()
