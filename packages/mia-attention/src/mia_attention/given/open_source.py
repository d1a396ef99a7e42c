"""Opens the source of answers that the settings name."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from mia_augment import Sample
from mia_augment.images import OpenImage
from PIL import Image

from mia_attention.answering.batches import Prompt
from mia_attention.answering.model_view import open_view
from mia_attention.given.answers_file import FileAnswers
from mia_attention.given.said import GivenAnswers
from mia_attention.given.server import ServerAnswers
from mia_attention.settings import ScoreSettings


@contextlib.contextmanager
def opened(
    settings: ScoreSettings, processor: Any, open_image: OpenImage, ids: Collection[str]
) -> Iterator[GivenAnswers | None]:
    """The answers to samples with these ids from where the settings say; None: the model here answers.

    Raises:
        ConfigError, DataError, ModelError: as `FileAnswers` and `ServerAnswers`.
    """
    source = settings.answers
    if source is None:
        yield None
    elif source.file is not None:
        yield FileAnswers(source.file, ids)
    else:

        def view(prompt: Prompt) -> list[Image.Image]:
            if isinstance(prompt, Sample):
                return open_view(prompt, open_image, settings)
            return [open_image(name) for name in prompt.images]

        with ServerAnswers(source, processor, view, settings.max_new_tokens) as answers:
            yield answers
