from __future__ import annotations

import dataclasses

import pytest
import torch
from mia_augment.errors import DataError, ModelError
from mia_dpo_train.data.encode import EncodedPair, PairEncoder, collate, concatenate, joined_vision, pad_rows


def test_an_answer_is_its_own_tokens_and_the_end(build, make_pair, open_picture):
    _, processor = build("llava")
    encoded = PairEncoder(processor, open_picture)(make_pair(0, 2, chosen="red cat .", rejected="blue ."))
    tokenizer = processor.tokenizer
    assert tokenizer.convert_ids_to_tokens(encoded.chosen) == ["red", "cat", ".", "</s>"]
    assert tokenizer.convert_ids_to_tokens(encoded.rejected) == ["blue", ".", "</s>"]


def test_the_prompt_ends_where_the_answer_starts_and_holds_every_image(build, make_pair, open_picture):
    _, processor = build("llava")
    encoded = PairEncoder(processor, open_picture)(make_pair(0, 3))
    tokens = processor.tokenizer.convert_ids_to_tokens(encoded.prompt)
    assert tokens[-2:] == ["assistant", ":"]
    assert tokens.count("<image>") == 3 * 16  # 56 px in patches of 14
    assert encoded.vision["pixel_values"].shape == (3, 3, 56, 56)
    assert encoded.length == len(tokens) + 9


def test_a_template_that_writes_the_start_token_does_not_get_two(build, make_pair, open_picture):
    _, processor = build("llava")
    starting = "{{ bos_token }}" + processor.chat_template
    plain = PairEncoder(processor, open_picture)(make_pair(0, 1)).prompt
    processor.chat_template = starting
    processor.tokenizer.add_bos_token = True
    prompt = PairEncoder(processor, open_picture)(make_pair(0, 1)).prompt
    assert prompt[0] == processor.tokenizer.bos_token_id
    assert torch.equal(prompt[1:], plain)


def test_an_answer_with_an_image_token_is_refused(build, make_pair, open_picture):
    _, processor = build("llava")
    with pytest.raises(DataError, match="pair pair-000: its rejected answer contains the image token"):
        PairEncoder(processor, open_picture)(make_pair(0, 1, rejected="a <image> cat"))


def test_a_tokenizer_without_an_end_is_refused(build, open_picture):
    _, processor = build("llava")
    processor.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        PairEncoder(processor, open_picture)


def test_the_digest_tells_pairs_with_other_pixels_apart(build, make_pair, open_picture):
    _, processor = build("llava")
    pair = make_pair(0, 1)
    first = PairEncoder(processor, open_picture)(pair)
    other = PairEncoder(processor, lambda name: open_picture(name).rotate(180))(pair)
    assert first.digest == PairEncoder(processor, open_picture)(pair).digest != other.digest


def encoded(prompt, chosen, rejected):
    return EncodedPair("x", torch.tensor(prompt), {}, torch.tensor(chosen), torch.tensor(rejected), {})


def test_prompts_end_in_one_column_and_answers_start_in_one():
    batch = collate([encoded([5, 6, 7], [1, 2], [3]), encoded([8], [4], [5, 6, 7])], pad=0)
    assert batch.prompt.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert batch.prompt_mask.tolist() == [[True] * 3, [False, False, True]]
    assert batch.chosen.tolist() == [[1, 2], [4, 0]]
    assert batch.rejected.tolist() == [[3, 0, 0], [5, 6, 7]]
    assert batch.lengths.tolist() == [[2, 1], [1, 3]]
    assert batch.tokens == 3 + 1 + 2 + 1 + 1 + 3


def test_rows_are_padded_on_either_side():
    rows = [torch.tensor([1]), torch.tensor([2, 3])]
    assert pad_rows(rows, 9)[0].tolist() == [[1, 9], [2, 3]]
    assert pad_rows(rows, 9, left=True)[0].tolist() == [[9, 1], [2, 3]]


def test_what_tokens_see_is_padded_in_every_axis():
    rows = [torch.ones(1, 2), torch.ones(2, 1)]
    assert pad_rows(rows, 0, left=True)[0].tolist() == [[[0, 0], [1, 1]], [[1, 0], [1, 0]]]


def test_lists_of_pictures_are_joined_and_outputs_of_some_pictures_alone_too():
    first, second = (
        dataclasses.replace(encoded([5], [1], [2]), vision=vision)
        for vision in (
            {"pixel_values": torch.ones(1, 2), "num_local_patches": [0]},
            {"pixel_values": torch.ones(2, 2), "num_local_patches": [3, 1], "pixel_values_local": torch.ones(4, 2)},
        )
    )
    joined = joined_vision([first, second])
    assert joined["num_local_patches"] == [0, 3, 1]
    assert (joined["pixel_values"].shape, joined["pixel_values_local"].shape) == ((3, 2), (4, 2))
    assert first.digest != dataclasses.replace(first, vision={**first.vision, "num_local_patches": [1]}).digest
    assert collate([first, second]).to(torch.device("cpu")).vision["num_local_patches"] == [0, 3, 1]


def test_images_of_other_sizes_are_filled_with_zeros():
    joined = concatenate([torch.ones(1, 2, 3), torch.ones(2, 1, 4)])
    assert joined.shape == (3, 2, 4)
    assert joined[0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]
    assert joined[1].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
