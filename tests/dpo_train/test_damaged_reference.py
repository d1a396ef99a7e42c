"""A damaged store of reference log-probs is computed again, a damaged journal from the first damaged line on."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mia_dpo_train.data.encode import PairEncoder
from mia_dpo_train.data.pair_set import Measured, PairSet
from mia_dpo_train.logps.reference import _read, stored_logps
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


class OneProcess:
    """The accelerator of a process that is alone."""

    device, process_index, num_processes, is_main_process = torch.device("cpu"), 0, 1, True

    def reduce(self, tensor, how):
        return tensor

    def wait_for_everyone(self):
        pass


class Killed(Exception):
    """As if the process had been killed."""


@pytest.mark.parametrize(
    "damage", [b'{"batch": 1, "result": {}}', b'{"batch": 1, "result": {"x": [0, 0]}}', b'{"batch": 1, "re']
)
def test_a_damaged_batch_is_computed_again(build, pairs, open_picture, tmp_path, damage):
    _, processor = build("llava")
    made = PairSet(pairs[:6], PairEncoder(processor, open_picture))
    made.measured = [Measured(each.length, len(each.chosen), each.digest) for each in (made[index] for index in range(6))]
    computed = []

    def compute(batch, last=99):
        computed.append(batch.ids)
        if len(computed) > last:
            raise Killed
        return torch.arange(4.0).view(2, 2) - len(computed)

    def stored(compute):
        options = {"size": 2, "accelerator": OneProcess(), "pad": 0, "progress": lambda done: None}
        return stored_logps(tmp_path / "reference.json", KEY, made, compute, **options)

    with pytest.raises(Killed):
        stored(lambda batch: compute(batch, last=2))
    journal = tmp_path / ".reference.journal" / "0.jsonl"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([*lines[:2], damage]) + b"\n")
    found = stored(compute)
    assert computed[1:3] == computed[3:]  # the second batch, which was damaged, and the third; the first stays
    assert sorted(found) == sorted(each.digest for each in made.measured)
    assert not journal.parent.exists()


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
