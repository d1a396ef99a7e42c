from __future__ import annotations

import subprocess
import sys

import pytest
from mia_augment.errors import ConfigError
from mia_augment.lock import only_writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")

HOLD = """
import sys
from pathlib import Path
from mia_augment.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match="another process is writing here"), only_writer(tmp_path, patience=0.1):
        pass
    first.kill()
    first.communicate()
    with only_writer(tmp_path, patience=5):
        pass


def test_a_child_that_inherits_the_lock_holds_it_on(tmp_path):
    with only_writer(tmp_path) as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    with pytest.raises(ConfigError), only_writer(tmp_path, patience=0.1):
        pass
    child.communicate()
    with only_writer(tmp_path, patience=5):
        pass
