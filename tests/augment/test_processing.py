"""One call of a processor, and what its outputs are, worked by hand; no torch is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mia_augment import barred_tokens, before_the_head, image_token_id, logits_at
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
        "image_attention_mask": tensor(2, 7, 3),
        "cross_attention_mask": tensor(2, 7, 3, 4),
        "image_embeds_position_mask": tensor(2, 7),
        "pixel_attention_mask": tensor(2, 3, 7, 7),
        "aspect_ratio_mask": tensor(2, 7, 4),
    }
    of_pictures = ["cross_attention_mask", "image_attention_mask", "image_embeds_position_mask"]
    assert sorted(per_token(outputs)) == sorted(["attention_mask", "input_ids", "moe_mm_token_type_ids", *of_pictures])


class Processor:
    model_input_names = ("input_ids", "mm_token_type_ids")
    tokenizer = SimpleNamespace(bos_token="<s>")

    image_token = "<image>"

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
    assert process(processor, ["<s> a <image>"], [[PICTURE]]) == {"input_ids": 1}
    assert processor.calls[0]["return_mm_token_type_ids"]
    assert processor.calls[0]["add_special_tokens"] is False
    process(processor, ["a <image>"], [[PICTURE]])
    assert "add_special_tokens" not in processor.calls[1]


def test_a_processor_that_places_the_picture_itself_is_first_given_a_plain_list() -> None:
    processor = Processor(nested=True)
    assert process(processor, ["a"], [[PICTURE]]) == {"input_ids": 1}
    assert len(processor.calls) == 2
    process(processor, ["a <image>"], [[PICTURE]])
    assert len(processor.calls) == 3


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


def test_positions_count_from_the_end_where_pictures_stand_before_the_text() -> None:
    class Before(Model):
        config = SimpleNamespace()

        def forward(self, input_ids: Any, pixel_values: Any = None, logits_to_keep: Any = None) -> Any:
            return super().forward(input_ids, logits_to_keep)

        __call__ = forward

    for keeps in (True, False):
        found = logits_at(Before(keeps=keeps), np.array([1, 2]), {"input_ids": np.zeros((1, 3))})
        assert found.tolist() == [[[12, 13, 14, 15], [16, 17, 18, 19]]]


def test_no_token_is_barred_where_none_stands_for_a_picture() -> None:
    class Reads:
        config = SimpleNamespace()

        def forward(self, input_ids: Any, pixel_values: Any = None) -> None: ...

    class Text:
        config = SimpleNamespace()

        def forward(self, input_ids: Any) -> None: ...

    assert barred_tokens(Reads()) == []
    Reads.config = SimpleNamespace(image_token_id=7)
    assert barred_tokens(Reads()) == [7]
    with pytest.raises(ModelError, match="no model that takes pictures"):
        barred_tokens(Text())


def test_the_token_of_a_picture_stands_under_one_of_three_names() -> None:
    def model(**fields: Any) -> Any:
        return SimpleNamespace(config=SimpleNamespace(**fields))

    assert image_token_id(model(image_token_id=7)) == 7
    assert image_token_id(model(image_token_index=8)) == 8
    assert image_token_id(model(image_token_id=None, vocabulary_map={"<image>": 9})) == 9
    with pytest.raises(ModelError, match="no model that takes pictures"):
        image_token_id(model())


class Head:
    def forward(self, states: Any) -> Any:
        return 2 * states

    def __call__(self, states: Any) -> Any:
        return self.forward(states)


class Headed:
    """A model whose states are its token ids and whose logits are twice these, capped or barred where it is told so."""

    def __init__(self, cap: float | None = None, barred: float | None = None, token: int | None = 5) -> None:
        self.head, self.cap, self.barred, self.kept = Head(), cap, barred, []  # type: ignore[var-annotated]
        self.config = SimpleNamespace(image_token_id=token)

    def get_output_embeddings(self) -> Head:
        return self.head

    def forward(self, input_ids: Any, pixel_values: Any = None, logits_to_keep: Any = None) -> Any:
        self.kept.append(logits_to_keep)
        logits = self.head(input_ids[:, logits_to_keep, None])
        if self.barred is not None:
            logits[:, :, 0] = self.barred
        return SimpleNamespace(logits=logits if self.cap is None else np.minimum(logits, self.cap))

    __call__ = forward


class OfAll(Headed):
    def forward(self, input_ids: Any) -> Any:  # type: ignore[override]
        return SimpleNamespace(logits=self.head(input_ids[..., None]))

    __call__ = forward  # type: ignore[assignment]


IDS = {"input_ids": np.array([[1, 2, 3]])}


def test_the_head_runs_apart_where_nothing_comes_behind_it() -> None:
    model = Headed()
    found = before_the_head(model, IDS, np.array([0, 2]))
    assert found is not None
    outputs, head = found
    assert (outputs.logits[0, :, 0].tolist(), head(outputs.logits)[0, :, 0].tolist()) == ([1, 3], [2, 6])
    assert model(**IDS, logits_to_keep=[1]).logits.tolist() == [[[4]]]  # the head is as it was


def test_positions_before_the_head_are_counted_from_the_end_where_pictures_stand_before_the_text() -> None:
    model = Headed(token=None)
    before_the_head(model, IDS, np.array([0, 2]))
    assert model.kept[0].tolist() == [-3, -1]


@pytest.mark.parametrize("changes", [{"cap": 5}, {"barred": -9}])
def test_a_head_that_something_comes_behind_stays_in_its_model_and_is_tried_once(changes: dict[str, float]) -> None:
    """Also where logits are changed in place: what comes out is then the very array that the head gave."""
    model = Headed(**changes)
    for _ in range(2):
        assert before_the_head(model, IDS, np.array([0, 2])) is None
    assert len(model.kept) == 1
    assert model(**IDS, logits_to_keep=[2]).logits.tolist() == [[[5 if "cap" in changes else -9]]]


def test_a_model_that_makes_logits_of_all_positions_all_the_same_has_its_states_picked() -> None:
    found = before_the_head(OfAll(), IDS, np.array([2]))
    assert found is not None
    assert found[0].logits.tolist() == [[[3]]]


def test_a_forward_that_stood_in_is_put_back() -> None:
    """Accelerate puts one there which moves the inputs of a model that is spread over devices."""
    model = Headed()
    model.head.forward = moving = lambda states: 3 * states  # type: ignore[method-assign]
    before_the_head(model, IDS, np.array([0]))
    assert vars(model.head)["forward"] is moving
