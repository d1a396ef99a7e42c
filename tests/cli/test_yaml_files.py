"""Settings files that are no settings: one message that names file and line, in bounded time and memory."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mia_augment.errors import ConfigError
from mia_cli.config.schema import load_config, parse
from mia_cli.config.yaml_files import read_yaml
from mia_select.settings import SelectSettings

LINES = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
BOMB = "\n".join(["a0: &a0 [x,x,x,x,x,x,x,x,x,x]", *LINES, "run_dir: *a9"])


def refused(tmp_path, content: str | bytes) -> str:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_aliases_that_unfold_to_billions_are_refused_before_they_do(tmp_path):
    tracemalloc.start()
    assert "line 5: expected at most 20000 values, aliases written out" in refused(tmp_path, BOMB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20


def test_an_alias_is_as_good_as_what_it_stands_for(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text("data: &d {limit: 7}\nevaluate: {<<: &e {per_bucket: 0}, holdout: 0.2}\n")
    config = load_config(path)
    assert (config.data.limit, config.evaluate.per_bucket, config.evaluate.holdout) == (7, 0, 0.2)


@pytest.mark.parametrize("text", ["a: &a [*a]", "&a {b: {c: *a}}", "a: &a\n  ? *a\n  : 1"])
def test_an_alias_within_itself(tmp_path, text):
    assert "stands within &a itself" in refused(tmp_path, text)


@pytest.mark.parametrize("text", ["[" * 3000, "[" * 3000 + "]" * 3000, "{a: " * 3000, "- " * 3000, "!!a " * 3000])
def test_brackets_within_brackets(tmp_path, text):
    assert "line 1" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run_dir: a\nrun_dir: b\nseed: 1\n", "line 2: key 'run_dir' stands here and in line 1"),
        ("data:\n  limit: 1\n  source: a\n  limit: 2\n", "line 4: key 'limit' stands here and in line 2"),
        ("augment: {formats: {grid: 1, grid: 2}}", "line 1: key 'grid'"),
        ('run_dir: a\n"run_dir": b\n', "line 2: key 'run_dir'"),
    ],
)
def test_a_key_that_stands_twice(tmp_path, text, said):
    assert said in refused(tmp_path, text)


@pytest.mark.parametrize(
    "content",
    [
        b"run_dir: \0",
        b'run_dir: "a\\0b"',
        b'run_dir: "\\ud800"',
        b'"\\ud800": 1',
        b"run_dir: caf\xe9",
        "run_dir: a".encode("utf-16"),
        b"\x1f\x8b\x08\0",
        b"seed: " + b"1" * 5000,
        b"seed: !!int x",
        b"seed: !!int ''",
        b"seed: !!bool maybe",
        b"seed: !!float x",
        b"run_dir: !!binary '*'",
        b"run_dir: 2026-99-99",
        b"run_dir: !!timestamp x",
        b"? [a]\n: 1",
        b"? {a: 1}\n: 1",
        b"seed: !!python/object/apply:os.system ['true']",
        b"1: 2",
        b"null: 2",
        b"--- 1\n--- 2",
        b"a: *nothing",
        b"%YAML 9.9\n---\na: 1",
        b"\t- a",
        b"augment: [1, 2]",
        b"seed: [" + b"x, " * 5000 + b"]",
        b"run_dir: " + b"x" * (2 << 20),
        b"run_dir: ~nobody-of-this-name/run",
    ],
)
def test_what_is_no_settings_file(tmp_path, content):
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert len(str(caught.value)) < 2000


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 3\n")
    assert load_config(path).seed == 3


PIECES = st.sampled_from(
    [
        *["run_dir", "seed", "data", "augment", "formats", ": ", ":\n  ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "!!int "],
        *["!!", "<<", "? ", "|\n  ", ">", "'", '"', "\\ud83d", "\\0", "#", "\n", "\n  ", "---\n", "...\n", "%", "@", "~"],
        *["null", "1", "1e999", "0x", ".inf", "2026-13-41", "\ufeff", "\x85", "é", "\U0001f600", "\t"],
    ]
)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.lists(PIECES, max_size=24).map("".join).map(str.encode), st.binary(max_size=60)))
@example(content=b"? 1\n: - &a\n- *a")
def test_whatever_stands_in_the_file_it_is_read_or_refused(tmp_path, content):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    for section in ("select", None):
        with contextlib.suppress(ConfigError):
            parse(SelectSettings, path, section)
    with contextlib.suppress(ConfigError):
        load_config(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text("abé 1:", max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
        max_leaves=12,
    )
)
def test_sound_yaml_is_read_as_pyyaml_reads_it(tmp_path, value):
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    assert read_yaml(path)[0] == value
