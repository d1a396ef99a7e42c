"""One writer per folder: a lock that ends with the process and those it has started.

The lock is the operating system's, on a file of the folder: whoever dies gives it back, and child processes that inherit its
descriptor keep it. (The library filelock keeps its descriptors to itself, so workers could not.)
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic_core import from_json

from mia_augment.errors import ConfigError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
LOCK_PATIENCE = 30.0
"""Seconds to wait for workers of a killed run, which finish their task first."""

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_LEFT_OVER = re.compile(r"\..+\.(\d+)\.tmp")
"""As `mia_augment.storage.files.atomic_write` names what it has not finished; with the process."""

_held: dict[Path, int] = {}
"""Folder -> descriptor of the lock that this process holds on it."""

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def only_writer(
    folder: Path, patience: float = LOCK_PATIENCE, *, part: int = 0, also: tuple[str, ...] = (), wait: bool = False
) -> Iterator[int | None]:
    """Hold the lock of a folder, and clear away what a killed writer left half written there.

    Args:
        folder: made if it is not there.
        patience: seconds to wait for the lock; a holder that is known to live is not waited for.
        part: several processes that share one run hold a part each, counted from 0; only 0 clears away.
        also: folders below it to be cleared too.
        wait: wait for the lock however long a living holder keeps it.

    Yields:
        The lock's file descriptor, which child processes are to inherit; None on Windows and file systems without locks, where
        two runs in one folder are the user's care.

    Raises:
        ConfigError: another process holds it (which one, on which machine, since when), or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made a folder ({error.strerror}); choose another one") from error
    if sys.platform == "win32":
        clear_left_overs(folder, *also)
        yield None
        return
    path = _file_of(folder, part)
    descriptor = _acquired(path, folder, math.inf if wait else time.monotonic() + patience)
    try:
        if part == 0:
            clear_left_overs(folder, *also)
            if descriptor is not None:
                _held[folder.resolve()] = descriptor
        yield descriptor
    finally:
        if part == 0:
            _held.pop(folder.resolve(), None)
        if descriptor is not None:
            os.close(descriptor)
            _remove_if_free(path)


def held_descriptor(folder: Path) -> int | None:
    """Descriptor of the lock that this process holds on a folder, for child processes to inherit; None: it holds none."""
    return _held.get(folder.resolve())


def is_held(folder: Path, part: int = 0) -> bool:
    """Whether a process works in a folder, or on a part of it (see `only_writer`)."""
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(_file_of(folder, part), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def held_parts(folder: Path) -> list[int]:
    """The parts of a folder, counted from 1, on which processes work."""
    found = sorted(int(path.name.removeprefix(f"{LOCK}-")) for path in folder.glob(f"{LOCK}-*"))
    return [part for part in found if is_held(folder, part)]


def _file_of(folder: Path, part: int) -> Path:
    return folder / (f"{LOCK}-{part}" if part else LOCK)


def clear_left_overs(folder: Path, *also: str) -> None:
    """Remove the unfinished files of processes that were killed; for the folder's only writer."""
    for place in (folder, *(folder / name for name in also)):
        for path in place.glob(".*.tmp"):
            if _LEFT_OVER.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def clear_left_overs_of(file: Path) -> None:
    """Remove the unfinished copies of one file that killed processes of this machine left; other files stay."""
    for path in file.parent.glob(f".{file.name}.*.tmp"):
        found = _LEFT_OVER.fullmatch(path.name)
        if found and not _lives(int(found[1])):
            path.unlink(missing_ok=True)


def _acquired(path: Path, folder: Path, deadline: float) -> int | None:
    """The descriptor of the locked file, with a note in it of who holds it."""
    told = False
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            if deadline == math.inf:
                if not told:
                    logger.warning("%s: waiting for %s", folder, _named(holder))
                told = True
            elif holder.get("alive") or time.monotonic() > deadline:
                raise ConfigError(
                    f"{folder}: another process is writing here ({_named(holder)}); wait until it has ended or choose another "
                    "folder; what lies there must not be deleted meanwhile"
                ) from None
            time.sleep(0.05)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning("%s: this file system has no locks; see to it that only one process writes there", folder)
            return None
        else:
            if _is_still(path, descriptor):
                _note(descriptor)
                return descriptor
            os.close(descriptor)  # its holder took the file away between our opening and locking it


def _remove_if_free(path: Path) -> None:
    """Take the lock's file away unless a child process, or by now another writer, holds it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _note(descriptor: int) -> None:
    note = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):  # a full disk is no reason not to hold the lock
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(note).encode(), 0)


def _holder(descriptor: int) -> dict[str, object]:
    """What the lock's holder noted; `alive` says whether that process is known to live (its workers may outlive it)."""
    try:
        note = from_json(os.pread(descriptor, 4096, 0))
        here = note["machine"] == socket.gethostname()
        return {**note, "alive": here and _lives(int(note["process"]))}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _named(holder: dict[str, object]) -> str:
    if not holder:
        return "it did not note which"
    gone = "" if holder["alive"] else ", or what it has started"
    return f"process {holder['process']} on {holder['machine']}{gone}, since {holder['since']}"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
