"""LLaVA-1.5's prompt token by token: with Llama's vocabulary, split by a few lines that know nothing of other tokenizers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from mia_augment.prompting import answer_ids, process, render_prompt, stop_ids
from mia_dpo_train import LLAVA_TEMPLATE
from PIL import Image
from published_tokenizers import llama_vocabulary, published

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
BEGINNING = [1, 319, 13563, 1546, 263, 12758, 1404, 322, 385, 23116, 21082, 20255, 29889]
"""As printed in many reports: `<s> A chat between a curious user and an artificial intelligence assistant.`"""
QUESTIONS = [
    "<image>\nWhat color is the cat's collar?",
    "Image1:<image>\nImage2:<image>\nIn Image2, how many dogs are there?",
    "".join(f"Image{number}:<image>\n" for number in range(1, 6)) + "In Image4, what is it?\nAnswer with 1 word.",
    "Is <image> like <image>? 这是什么  😀",
]
TOKENS = 16
"""Of a picture of the tiny build."""


def pieces(text: str) -> list[int]:
    """Ids of a text, a blank put before it: the best pair of neighbours is joined until none can be."""
    tokens, merges = llama_vocabulary()
    ids, ranks = {token: index for index, token in enumerate(tokens)}, {pair: rank for rank, pair in enumerate(merges)}
    words = list("▁" + text.replace(" ", "▁"))
    while (best := min(pairwise(words), key=lambda pair: ranks.get(pair, len(ranks)), default=("", ""))) in ranks:
        place = next(index for index, pair in enumerate(pairwise(words)) if pair == best)
        words[place : place + 2] = ["".join(best)]
    found = [[ids[word]] if word in ids else [ids[f"<0x{byte:02X}>"] for byte in word.encode()] for word in words]
    return [index for row in found for index in row]


def originals(text: str, image: int) -> list[int]:
    """What LLaVA's own code makes of a rendered text: what stands between pictures is tokenized by itself."""
    first, *others = text.split("<image>")
    return [1, *pieces(first), *(index for other in others for index in [*[image] * TOKENS, *pieces(other)])]


@pytest.mark.parametrize("question", QUESTIONS)
def test_prompt_and_answer_are_the_originals(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = published("llava-1.5")
    monkeypatch.setattr(made.processor, "chat_template", LLAVA_TEMPLATE)
    text = f"{SYSTEM} USER: {question} ASSISTANT:"
    assert render_prompt(made.processor, question) == text
    pictures = [Image.new("RGB", (40, 40))] * question.count("<image>")
    ids = process(made.processor, [text], [pictures])["input_ids"][0].tolist()
    image = made.processor.tokenizer.convert_tokens_to_ids("<image>")
    assert ids == originals(text, image)
    assert ids[: len(BEGINNING)] == BEGINNING
    answer = "It is red, with a small bell."
    said = answer_ids(made.processor, question, answer, stops=stop_ids(made.model, made.processor))
    assert ids + said == [*originals(f"{text} {answer}", image), 2]
