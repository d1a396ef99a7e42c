"""One call of a processor, and what its outputs are, worked by hand; no torch is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mia_augment import image_token_id, logits_at
from mia_augment.errors import ModelError
from mia_augment.prompting import per_token, process
from PIL import Image


class Tensor(np.ndarray):
    """Enough of a tensor."""

    def is_floating_point(self) -> bool:
        return np.issubdtype(self.dtype, np.floating)


def tensor(*shape: int, dtype: type = int) -> Any:
    return np.zeros(shape, dtype).view(Tensor)


def test_outputs_of_the_shape_of_the_ids_belong_to_tokens_whatever_their_name() -> None:
    outputs = {
        "input_ids": tensor(2, 7),
        "attention_mask": tensor(2, 7),
        "moe_mm_token_type_ids": tensor(2, 7),
        "weights": tensor(2, 7, dtype=float),
        "image_grid_thw": tensor(2, 7),
        "image_sizes": tensor(3, 2),
    }
    assert sorted(per_token(outputs)) == ["attention_mask", "input_ids", "moe_mm_token_type_ids"]


class Processor:
    model_input_names = ("input_ids", "mm_token_type_ids")
    tokenizer = SimpleNamespace(bos_token="<s>")

    def __init__(self, *, nested: bool) -> None:
        self.nested, self.calls = nested, []  # type: ignore[var-annotated]

    def __call__(self, images: list[Any], text: list[str], **keywords: Any) -> dict[str, Any]:
        self.calls.append(keywords)
        if isinstance(images[0], list) != self.nested:
            raise ValueError("pictures in another form")
        return {"input_ids": len(images), "labels": 1}


PICTURE = Image.new("RGB", (8, 8))


def test_token_types_are_asked_for_bos_is_not_doubled_and_labels_are_left_out() -> None:
    processor = Processor(nested=True)
    assert process(processor, ["<s> a"], [[PICTURE]]) == {"input_ids": 1}
    assert processor.calls[0]["return_mm_token_type_ids"]
    assert processor.calls[0]["add_special_tokens"] is False
    process(processor, ["a"], [[PICTURE]])
    assert "add_special_tokens" not in processor.calls[1]


def test_a_processor_of_one_picture_a_prompt_gets_a_plain_list() -> None:
    assert process(Processor(nested=False), ["a", "b"], [[PICTURE], [PICTURE]]) == {"input_ids": 2}
    with pytest.raises(ValueError, match="another form"):
        process(Processor(nested=False), ["a"], [[PICTURE, PICTURE]])


class Model:
    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps

    def forward(self, input_ids: Any, logits_to_keep: Any = None) -> Any:
        logits = np.arange(20).reshape(1, 5, 4)
        return SimpleNamespace(logits=logits[:, logits_to_keep] if self.keeps else logits)

    __call__ = forward


@pytest.mark.parametrize("keeps", [True, False])
def test_logits_are_those_at_the_positions_whether_or_not_the_model_keeps_others(keeps: bool) -> None:
    assert logits_at(Model(keeps=keeps), [1, 3], {"input_ids": 0}).tolist() == [[[4, 5, 6, 7], [12, 13, 14, 15]]]


def test_the_token_of_a_picture_stands_under_one_of_three_names() -> None:
    def model(**fields: Any) -> Any:
        return SimpleNamespace(config=SimpleNamespace(**fields))

    assert image_token_id(model(image_token_id=7)) == 7
    assert image_token_id(model(image_token_index=8)) == 8
    assert image_token_id(model(image_token_id=None, vocabulary_map={"<image>": 9})) == 9
    with pytest.raises(ModelError, match="no model that takes pictures"):
        image_token_id(model())
