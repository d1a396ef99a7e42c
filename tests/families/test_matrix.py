"""Every type of transformers' image-text-to-text table, built tiny: what the table in docs/families.md says of it is so.

The twelve most used run with every test; all of them, which takes minutes, with MIA_ALL_FAMILIES=1.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from family_builds import TYPES
from family_columns import COLUMNS, Line, measured
from write_families import PAGE, read_marks

MOST_USED = [
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "gemma3", "idefics3", "smolvlm",
    "mistral3", "paligemma",
]  # fmt: skip
RARER = [name for name in TYPES if name not in MOST_USED]
MARKS = read_marks(PAGE)
ASKED = pytest.mark.skipif(not os.environ.get("MIA_ALL_FAMILIES"), reason="set MIA_ALL_FAMILIES=1 to run every type")


@pytest.mark.parametrize("name", [*MOST_USED, *(pytest.param(name, marks=[pytest.mark.slow, ASKED]) for name in RARER)])
def test_what_the_table_promises_of_a_type_is_so(name: str) -> None:
    if name not in MARKS:
        pytest.skip("the table was made with a transformers that did not have this type")
    line = measured(name)
    broken = {column: getattr(line, column) for column in COLUMNS if MARKS[name][column] and getattr(line, column)}
    assert not broken


def test_the_most_used_types_work_in_every_column() -> None:
    assert all(MARKS[name][column] for name in MOST_USED for column in COLUMNS)


def test_a_line_without_a_problem_is_marked_and_one_with_a_problem_says_it(tmp_path: Path) -> None:
    from write_families import written

    page = tmp_path / "families.md"
    page.write_text(written([Line("llava", route="packed"), Line("other", *["no | pictures"] * 4)]), "utf-8")
    assert read_marks(page) == {
        "llava": dict.fromkeys(COLUMNS, True),
        "other": dict.fromkeys(COLUMNS, False),
    }
    assert "no \\| pictures" in page.read_text("utf-8")


def test_some_rows_are_made_anew_and_the_others_stand(tmp_path: Path) -> None:
    from write_families import read_rows, written

    page = tmp_path / "families.md"
    page.write_text(written([Line("a", *["none"] * 4), Line("c", boxes="x | y")]), "utf-8")
    again = written([Line("a", attention="none", readout="alone"), Line("b")], read_rows(page))
    assert again.count("\n| `") == 3
    assert "| `a` | no: none | `alone` | yes | yes |\n| `b` | yes | yes | yes | yes |\n| `c` | yes | yes | yes | no: x" in again
    assert "Of 3 types: attention 2, score 3, training 3, boxes 2." in again
