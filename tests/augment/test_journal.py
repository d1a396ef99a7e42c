"""Whatever a disk does to a journal, what is sound in it counts, and the rest is done again."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mia_augment.storage import Journal

KIND = list[tuple[int, str, dict[str, str]]]
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def filled(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    journal = Journal(folder, "work", KIND)
    with journal.writing() as note:
        for batch in range(3):
            note(batch, [(batch, "scored.jsonl", {"id": str(batch), "text": "é" * 9})])
    return folder / "0.jsonl"


def changed(data: st.DataObject, content: bytes) -> bytes:
    """Some bytes replaced, taken out or put in, or the end cut off."""
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        removed, added = data.draw(st.integers(0, 4)), data.draw(st.binary(max_size=4))
        content = content[:place] + added + content[place + removed :]
    return content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content


@QUICK
@given(data=st.data())
def test_a_damaged_journal_goes_on_with_what_is_sound(tmp_path, data):
    path = filled(tmp_path / "journal")
    path.write_bytes(changed(data, path.read_bytes()))
    journal = Journal(path.parent, "work", KIND)
    missing = {0, 1, 2} - journal.batches()
    with journal.writing() as note:
        for batch in missing:
            note(batch, [(batch, "scored.jsonl", {"id": "again"})])
    assert {0, 1, 2} <= journal.batches()
    for ((_, _, fields),) in journal.results().values():
        assert isinstance(fields, dict)


@pytest.mark.parametrize(
    "damage", [b"{}\n", b"[" * 9999 + b"\n", b'{"batch": 1, "result": [[1]]}\n', b"caf\xe9\n", b"\0" * 9 + b"\n"]
)
def test_a_line_of_something_else_costs_its_batch_alone(tmp_path, damage):
    path = filled(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage, lines[3]]))
    journal = Journal(tmp_path, "work", KIND)
    assert journal.batches() == {0, 2}
    assert journal.count() == 2
    other = Journal(tmp_path, "work", KIND, rank=1)  # another process reads the same files
    assert other.batches() == {0, 2}


def test_a_full_disk_is_told_with_the_file(tmp_path):
    journal = Journal(tmp_path, "work", KIND)
    with pytest.raises(OSError, match="No space") as caught, journal.writing():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "0.jsonl")
