"""Helpers of the command-line tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser_pages import launched
from click.testing import CliRunner, Result
from mia_cli.main import main
from playwright.sync_api import Browser

os.environ.setdefault("OMP_NUM_THREADS", "1")

Mia = Callable[..., Result]


@pytest.fixture
def mia() -> Mia:
    """Run `mia` with arguments in this process."""

    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def python() -> Callable[[str], str]:
    """Run a piece of Python in a fresh interpreter; gives what it prints."""

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
        return done.stdout

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser; for tests that are marked `NEEDS_BROWSER`."""
    with launched() as browser:
        yield browser
