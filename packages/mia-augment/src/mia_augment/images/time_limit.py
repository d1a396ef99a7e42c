"""Reading a picture in a process of its own, which is ended when it takes too long.

Nothing else can stop a decoder: while it runs, Python sees no signal. A process that crashes costs its picture only.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from mia_augment.errors import DataError
from mia_augment.settings import PictureSettings


class TooSlow(DataError):
    """A picture was not read within the time allowed."""


def child_environment() -> dict[str, str]:
    """Environment in which a child process finds this very package, however this process found it."""
    here = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])}


def open_in_subprocess(path: Path, limits: PictureSettings, fit_into: tuple[int, int] | None) -> Image.Image:
    """Open a picture as `mia_augment.images.decode.open_picture` does, within `limits.max_seconds`.

    Raises:
        TooSlow: the time is up.
        DataError: as `open_picture`, and where the decoder crashes.
    """
    request = json.dumps([str(path.absolute()), limits.model_dump(mode="json"), fit_into]).encode()
    command = [sys.executable, "-P", "-m", "mia_augment.images.time_limit"]
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, timeout=limits.max_seconds, env=child_environment(), check=False
        )
    except subprocess.TimeoutExpired:
        raise TooSlow(f"picture too slow: {path}: not read within max_seconds {limits.max_seconds:g}") from None
    if done.returncode:
        raise DataError(f"broken picture: {path}: the process that read it ended with code {done.returncode}")
    header, pixels = done.stdout.split(b"\n", 1)
    told = json.loads(header)
    if "error" in told:
        raise DataError(told["error"])
    picture = Image.frombytes("RGB", tuple(told["size"]), pixels)
    picture.format = told["format"]
    return picture


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    from mia_augment.images.decode import decode

    path, limits, fit_into = json.load(requests)
    settings = PictureSettings.model_validate(limits)
    if hasattr(signal, "alarm"):  # should the parent be killed meanwhile
        signal.alarm(math.ceil(settings.max_seconds) + 1)
    try:
        picture = decode(Path(path), settings, tuple(fit_into) if fit_into else None)
    except DataError as error:
        answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    answers.write(json.dumps({"size": picture.size, "format": picture.format}).encode() + b"\n")
    answers.write(picture.tobytes())


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
