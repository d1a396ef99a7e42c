"""A damaged store of reference log-probs is computed again, a damaged journal from the first damaged line on."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mia_dpo_train.logps.reference import _append, _read, _read_journal
from mia_dpo_train.training.checkpoints import PROGRESS, read_state

QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEY = {"model": "m", "tokens": "t"}
LOGPS = {"a": (-1.5, -2.5), "b": (-3.0, -0.25)}
SOUND = json.dumps({"key": KEY, "logps": LOGPS}).encode()

values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "logps", "a", "model"]), inner, max_size=3)
    ),
    max_leaves=6,
)
contents = st.one_of(
    st.binary(max_size=40),
    values.map(lambda value: json.dumps(value).encode()),
    st.tuples(st.integers(0, len(SOUND)), st.binary(max_size=3)).map(lambda at: SOUND[: at[0]] + at[1] + SOUND[at[0] + 1 :]),
    st.sampled_from([b"[" * 99_999, b"\xff\xfe{", b'{"key": [], "logps": 3}', b'{"key": {}, "logps": {"a": [1]}}']),
)


def test_a_sound_store_is_read(tmp_path):
    (tmp_path / "reference.json").write_bytes(SOUND)
    assert _read(tmp_path / "reference.json", KEY, ["a", "b"]) == LOGPS


@QUICK
@given(content=contents)
def test_whatever_stands_in_the_store_it_is_read_or_made_again(tmp_path, content):
    (tmp_path / "reference.json").write_bytes(content)
    found = _read(tmp_path / "reference.json", KEY, ["a", "b"])
    assert found is None or all(len(pair) == 2 and all(map(math.isfinite, pair)) for pair in found.values())


@QUICK
@given(data=st.data())
def test_whatever_stands_in_the_journal_it_goes_on(tmp_path, data):
    path = tmp_path / ".reference.journal"
    path.unlink(missing_ok=True)
    assert _read_journal(path, KEY) == []
    for logps in ({"a": (-1.0, -2.0)}, {"b": (-3.0, -4.0)}, {"c": (-5.0, -6.0)}):
        _append(path, logps)
    content = path.read_bytes()
    place, added = data.draw(st.integers(0, len(content))), data.draw(st.binary(max_size=5))
    path.write_bytes(content[:place] + added + content[place + data.draw(st.integers(0, 9)) :])
    done = _read_journal(path, KEY)
    _append(path, {"d": (-7.0, -8.0)})
    assert _read_journal(path, KEY) == [*done, {"d": (-7.0, -8.0)}]


@pytest.mark.parametrize("line", [b"{}x", b"[" * 9999, b"caf\xe9", b'{"a": [1]}', b'{"a": ["x", 1]}'])
def test_a_damaged_line_is_where_the_journal_ends(tmp_path, line):
    path = tmp_path / ".reference.journal"
    assert _read_journal(path, KEY) == []
    _append(path, {"a": (-1.0, -2.0)})
    path.write_bytes(path.read_bytes() + line + b"\n" + b'{"b": [-3.0, -4.0]}\n')
    assert _read_journal(path, KEY) == [{"a": (-1.0, -2.0)}]


@QUICK
@given(content=contents)
def test_whatever_stands_in_a_checkpoints_state_it_is_whole_or_passed_over(tmp_path, content):
    (tmp_path / PROGRESS).write_bytes(content)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize(
    "content", [b'{"sizes": [], "progressed": {}}', b'{"sizes": {"a": 1}}', b"[" * 99_999, b"[]", b"caf\xe9"]
)
def test_a_state_of_another_shape_is_passed_over(tmp_path, content):
    (tmp_path / PROGRESS).write_bytes(content)
    assert read_state(tmp_path) is None
