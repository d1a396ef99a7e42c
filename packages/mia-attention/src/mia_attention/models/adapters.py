"""Models that transformers' conventions do not describe: own attention classes, pictures inserted as embeddings.

Write a class with the methods of `Adapter`, register an object of it under the model's `config.model_type`, and everything in
this package works with that model: ::

    register_adapter("internlmxcomposer2", XComposerAdapter())
    score(samples, model, processor, settings, open_image=...)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from mia_attention.models.inputs import Encoded
from mia_attention.models.layer_call import Call


class Adapter(Protocol):
    """What has to be known about a model."""

    def layers(self, model: Any) -> Mapping[int, nn.Module]:
        """Self-attention modules of the language decoder by layer, from 0.

        Each is called once in a forward pass and keeps a cache that grows while generating.
        """
        ...

    def call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Call:
        """Queries and keys of one call of a module, from what it was given and returned.

        Both are rotated, the keys include the cache's content.
        """
        ...

    def encode(self, model: Any, processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Encoded:
        """A left-padded batch of prompts that hold ``<image>`` once per picture; chat formatting is the adapter's.

        `Encoded.inputs` goes to `model.generate` and must hold `attention_mask`, (batch, length). Where it holds no `input_ids`
        (embeddings instead), `generate` is taken to return new tokens only.
        """
        ...

    def brightness(self, model: Any, processor: Any, picture: Image.Image) -> Tensor | None:
        """Mean brightness, 0..1, that each visual token of a picture sees, (tokens,); None: boxes can't be mapped to tokens."""
        ...
