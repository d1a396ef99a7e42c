"""A tiny random vision-language model and photographs that need no download."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mia_cli.main import main

os.environ["OMP_NUM_THREADS"] = "1"

WORDS = "the color shape letter background count is a of what which how many are there drawn written in image picture"


@pytest.fixture
def mia() -> Callable[..., Result]:
    """Run `mia` with arguments in this process."""

    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a LLaVA model with random weights, 16 visual tokens an image, with tokenizer, processor and chat template."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("models") / "random-llava"
    tokenizer = _tokenizer()
    ends = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.3, tie_word_embeddings=False, **ends,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=48, patch_size=12
    )
    config = transformers.LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16, vision_feature_layer=-1, vision_feature_select_strategy="default", tie_word_embeddings=False,
        **ends,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    pictures = transformers.CLIPImageProcessor(size={"height": 48, "width": 48}, do_center_crop=False)
    transformers.LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=12, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% endif %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'user' %} ASSISTANT: {% else %}</s>{% endif %}{% endfor %}"
)


def _tokenizer() -> Any:
    import tokenizers
    import transformers

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    words = [*WORDS.split(), *re.findall(r"\S", "ABCDEFGHabcdefgh0123456789,.:?\n"), "USER", "ASSISTANT"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *words]))}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"], padding_side="left",
    )  # fmt: skip


PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "coins.png", "camera.png", "motorcycle_left.png")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with `rows.json` in the LLaVA format over real photographs, tidy rows and dirty ones."""
    import skimage.data

    folder = tmp_path / "photographs"
    (folder / "sk").mkdir(parents=True)
    for name in PHOTOGRAPHS:
        original = Path(skimage.data.__file__).parent / name
        (folder / "sk" / name).write_bytes(original.read_bytes())
    broken = (folder / "sk" / "coffee.png").read_bytes()
    (folder / "sk" / "cut.png").write_bytes(broken[: len(broken) // 2])
    (folder / "rows.json").write_text(json.dumps([*_tidy_rows(), *_dirty_rows()]), encoding="utf-8")
    return folder


def _tidy_rows() -> list[dict[str, Any]]:
    questions = ["What is in the picture?", "Which color is the largest thing?", "What would you call it?"]
    answers = {
        "astronaut.png": ["A woman in a space suit.", "Orange.", "A portrait."],
        "chelsea.png": ["A cat.", "Brown.", "Chelsea."],
        "coffee.png": ["A cup of coffee.", "White.", "Breakfast."],
        "rocket.jpg": ["A rocket at night.", "Black.", "Lift-off."],
        "coins.png": ["Old coins in rows.", "Silver.", "A treasure."],
        "camera.png": ["A man with a camera.", "Gray.", "Cameraman."],
        "motorcycle_left.png": ["A motorcycle in a garage.", "Red.", "A workshop."],
    }
    return [
        _row(f"{name.split('.')[0]}-{index}", f"sk/{name}", [(f"<image>\n{question}", answer)])
        for name, texts in answers.items()
        for index, (question, answer) in enumerate(zip(questions, texts, strict=True))
    ]


def _dirty_rows() -> list[dict[str, Any]]:
    text_only = _row("text-only", "sk/x.png", [("How are you?", "Fine.")])
    del text_only["image"]
    return [
        text_only,
        _row("no-such-file", "sk/missing.jpg", [("<image>\nWhat is it?", "A dog.")]),
        _row("cut-off", "sk/cut.png", [("<image>\nWhat is it?", "Coffee.")]),
        _row("outside", "../secret.png", [("<image>\nWhat is it?", "A secret.")]),
        _row("several-turns", "sk/chelsea.png", [("<image>\nWhat animal is it?", "A cat."), ("Is it asleep?", "No.")]),
        _row(17, "sk/coffee.png", [("<image>\nWhat is in the cup?", "Coffee.")]),
        _row("image-last", "sk/rocket.jpg", [("What stands there?\n<image>", "A rocket.")]),
        {"id": "no-turns", "image": "sk/coins.png", "conversations": []},
    ]


def _row(row_id: str | int, image: str, turns: list[tuple[str, str]]) -> dict[str, Any]:
    said = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    return {"id": row_id, "image": image, "conversations": said}
