"""What the model's layers hold at the last token of a prompt, before a word is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mia_augment import Sample
from mia_augment.images import OpenImage
from numpy.typing import NDArray

from mia_attention.answering.batches import run_in_order
from mia_attention.answering.model_view import encode_prompts, open_view
from mia_attention.models.inputs import Encoded
from mia_attention.settings import ScoreSettings
from mia_attention.states.hidden_states import capture_states, decoder_blocks


def last_prompt_states(
    samples: Sequence[Sample], model: Any, processor: Any, settings: ScoreSettings, *, open_image: OpenImage
) -> NDArray[np.float32]:
    """The hidden state behind every layer at each prompt's last token, (samples, layers, width).

    One forward pass over the prompts; they are padded on the left, so that the last position is everyone's last token.
    """

    def prepare(batch: Sequence[Sample]) -> Encoded:
        views = [open_view(sample, open_image, settings) for sample in batch]
        return encode_prompts(model, processor, [sample.prompt for sample in batch], views)

    def run(encoded: Encoded) -> list[Any]:
        with torch.inference_mode(), capture_states(model, layers, positions=[-1], stop=True) as states:
            model(**encoded.inputs, use_cache=False)
        last = torch.stack([states.at(layer)[:, 0].float() for layer in layers], dim=1)
        return list(last.cpu().numpy())

    layers = range(1, len(decoder_blocks(model)[0]) + 1)

    found = run_in_order(samples, settings.batch_size, prepare, run, lambda sample: sample)
    return np.stack([*found])
