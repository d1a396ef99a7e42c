"""Whether a checkpoint's chat template works: it is a program that came with the model, and may fail or never end."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from mia_augment.compose.prompts import IMAGE
from mia_augment.errors import MiaError, ModelError
from mia_augment.prompting.chat import render_prompt

SECONDS = 10.0
"""Longest time that rendering a question may take; templates take a thousandth of a second."""
MEMORY = 1 << 30
"""Most memory, in bytes, that rendering a question may take besides."""
MAX_RENDERED = 100_000
"""Most characters of a rendered question."""
QUESTION = f"Image1:{IMAGE}\nImage2:{IMAGE}\nWhich color?"


class _OutOfTime(BaseException):
    """No `Exception`, so that nothing on the way takes it for an error of the template and tries again."""


def check_chat_template(processor: Any, name: str) -> None:
    """Render a question about two pictures with the chat template, if there is one.

    Raises:
        ModelError: the template is broken, does not end in `SECONDS`, or takes more than `MEMORY`.
    """
    if getattr(processor, "chat_template", None) is None:
        return
    advice = "use the template published with the checkpoint (chat_template.jinja)"
    try:
        with _within(SECONDS), _memory(MEMORY):
            rendered = render_prompt(processor, QUESTION)
    except MiaError:
        raise
    except _OutOfTime:
        raise ModelError(f"model {name}: its chat template does not end within {SECONDS:g} seconds; {advice}") from None
    except MemoryError:
        raise ModelError(f"model {name}: its chat template takes more than {MEMORY >> 20} MB; {advice}") from None
    except Exception as error:  # jinja's errors, and any other that an expression in it raises
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"model {name}: its chat template is broken: {type(error).__name__}: {said}; {advice}") from error
    if len(rendered) > MAX_RENDERED:
        raise ModelError(f"model {name}: its chat template makes {len(rendered)} characters of a short question; {advice}")


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise `_OutOfTime` in whatever Python code still runs after some seconds. Templates are compiled to Python."""
    end = time.monotonic() + seconds
    before = sys.gettrace()

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > end:
            raise _OutOfTime
        return watch

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def _memory(more: int) -> Iterator[None]:
    """Let this process take so many bytes more and no others; where the system cannot tell how many it has, do nothing."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(statm.read_text().split()[0]) * resource.getpagesize() + more
    if soft != resource.RLIM_INFINITY and soft < most:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
