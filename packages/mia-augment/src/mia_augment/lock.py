"""One writer per folder: a lock that ends with the process and those it has started."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mia_augment.errors import ConfigError

if sys.platform != "win32":
    import fcntl

PATIENCE = 30.0
"""Seconds to wait for workers of a killed run, which end with what they are at."""


@contextlib.contextmanager
def only_writer(folder: Path, patience: float = PATIENCE) -> Iterator[int | None]:
    """Hold the lock of a folder; yields its file descriptor, which child processes are to inherit.

    Raises:
        ConfigError: another process still holds it after `patience` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # no such locks there: two runs in one folder are the user's care
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"{folder}: another process is writing here; wait for it or choose another folder"
                    ) from None
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)
