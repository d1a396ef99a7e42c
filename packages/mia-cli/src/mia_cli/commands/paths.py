"""Paths on the command line: what cannot be read or written at all is refused before anything else happens."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click
from mia_augment import ConfigError


class ReadPath(click.Path):
    """A path to read: its name is one that files can have. Whether something is there, the command says."""

    def __init__(self, **kinds: Any) -> None:
        super().__init__(path_type=Path, **kinds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fspath(value))
        problem = unusable_name(path) or self.problem(path)
        if problem:
            raise ConfigError(f"{path}: {problem}")
        return super().convert(value, param, ctx)

    def problem(self, path: Path) -> str | None:
        """What else speaks against it; nothing for a path to read."""
        return None


class WritePath(ReadPath):
    """A path to write: it is a file or folder, or can be made."""

    def problem(self, path: Path) -> str | None:
        return unwritable(path)


def unusable_name(path: Path) -> str | None:
    """Why no file can have this name, if so."""
    try:
        str(path).encode()
        path.stat()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except ValueError:
        return "a name with a zero byte"
    except OSError as error:
        return str(error.strerror or error)
    return None


def unwritable(path: Path) -> str | None:
    """Why nothing can be written at a path, if so; a folder is made beside or above it for a moment."""
    for place in (path, *path.absolute().parents):
        if place.is_symlink() and not place.exists():
            return (
                f"{place} is a symlink that leads to {place.readlink()}, where nothing is: make that folder or remove the link"
            )
        if place.exists():
            break
    if place == path and not (path.is_file() or path.is_dir()):
        return "expected a file or folder, or nothing yet; it is a pipe, a socket or a device"
    folder = place if place.is_dir() or place != path else path.absolute().parent
    try:
        with tempfile.TemporaryDirectory(prefix=".mia-", dir=folder):
            return None
    except OSError as error:
        return f"cannot be written: {folder}: {error.strerror or error}"


def replacement_note(path: Path) -> str:
    """Words for the end of a line that says what was written, asked before it is: empty where nothing is there yet."""
    return ", which replaces what was there" if path.is_file() or (path.is_dir() and any(path.iterdir())) else ""


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise ConfigError where a folder that is about to be replacement_note as a whole holds files, unless that is wanted."""
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: expected a new or empty folder, there are files in it; --overwrite replaces all of it")


READ_FOLDER = ReadPath(file_okay=False)
READ_FILE = ReadPath(dir_okay=False)
READ = ReadPath()
WRITE_FOLDER = WritePath(file_okay=False)
WRITE_FILE = WritePath(dir_okay=False)
WRITE = WritePath()
