from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys

import pytest
from mia_augment.errors import ConfigError
from mia_augment.storage.lock import clear_left_overs_of, is_held, only_writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")

HOLD = """
import sys
from pathlib import Path
from mia_augment.storage.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    who = rf"another process is writing here \(process {first.pid} on {socket.gethostname()}, since 20.*\); wait until"
    with pytest.raises(ConfigError, match=who), only_writer(tmp_path):  # it lives: there is nothing to wait for
        pass
    assert is_held(tmp_path)
    first.kill()
    first.communicate()
    assert not is_held(tmp_path)
    with only_writer(tmp_path, patience=5):
        assert is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_inherits_the_lock_holds_it_on(tmp_path):
    with only_writer(tmp_path) as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    with pytest.raises(ConfigError), only_writer(tmp_path, patience=0.1):
        pass
    child.communicate()
    with only_writer(tmp_path, patience=5):
        pass


LEAVE_A_CHILD = """
import subprocess, sys
from pathlib import Path
from mia_augment.storage.lock import only_writer
with only_writer(Path(sys.argv[1])) as held:
    subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=(held,))
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_message_names_a_holder_that_left_its_workers_behind(tmp_path):
    command = [sys.executable, "-c", LEAVE_A_CHILD, tmp_path]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    first.kill()
    first.wait()
    who = f"process {first.pid} on .*, or what it has started, since"
    with pytest.raises(ConfigError, match=who), only_writer(tmp_path, patience=0.2):
        pass
    first.stdin.close()  # the child reads it: now it ends
    with only_writer(tmp_path, patience=30):
        pass


def test_two_threads_of_one_process_do_not_write_at_once_either(tmp_path):
    with only_writer(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()} on"), only_writer(tmp_path):
        pass


def test_processes_that_share_a_run_hold_a_part_each(tmp_path):
    with only_writer(tmp_path), only_writer(tmp_path, part=1), pytest.raises(ConfigError), only_writer(tmp_path, part=1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_left_overs_are_cleared_by_the_first_part_alone_and_only_ours(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    ours = [tmp_path / ".pairs.jsonl.123.tmp", tmp_path / "checkpoints" / ".state.json.4.tmp"]
    others = [tmp_path / ".pairs.tmp", tmp_path / "pairs.jsonl.123.tmp", tmp_path / "kept.jsonl"]
    for path in (*ours, *others):
        path.touch()
    with only_writer(tmp_path, part=1, also=("checkpoints",)):
        assert all(path.exists() for path in ours)
    with only_writer(tmp_path, also=("checkpoints", "not there")):
        assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made a folder"), only_writer(tmp_path / "file" / "below"):
        pass


def test_a_file_system_without_locks_is_written_to_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with only_writer(tmp_path) as descriptor:
        assert descriptor is None
    assert "has no locks" in caplog.text


def test_only_dead_processes_left_overs_of_the_very_file_are_cleared(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(gone.stdout)
    left, other, living = (
        tmp_path / f".{name}.tmp" for name in (f"x.jsonl.{dead}", f"y.jsonl.{dead}", f"x.jsonl.{os.getpid()}")
    )
    for path in (left, other, living):
        path.touch()
    clear_left_overs_of(tmp_path / "x.jsonl")
    assert [path.exists() for path in (left, other, living)] == [False, True, True]
