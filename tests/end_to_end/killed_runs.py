"""Script: runs `mia run FILE` again and again, each time killed (SIGKILL) as soon as the next of the marks appears.

    python killed_runs.py FILE MARK ...

The children are forked from a process that has imported everything and done nothing, so that each starts at once.
"""

import os
import signal
import sys
import time
from pathlib import Path

import peft  # noqa: F401
import torch  # noqa: F401
import transformers
from mia_cli.main import main

_ = transformers.LlavaForConditionalGeneration


def start(file: str) -> int:
    """Run the pipeline in a child; gives its process id."""
    child = os.fork()
    if child:
        return child
    try:
        main(["run", file], standalone_mode=True)
    finally:
        os._exit(1)


def killed_at(file: str, mark: Path) -> bool:
    """Whether the run was still going on when the mark was there."""
    child = start(file)
    while not mark.exists():
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


file, *marks = sys.argv[1:]
for mark in marks:
    print(mark, killed_at(file, Path(mark)), flush=True)
