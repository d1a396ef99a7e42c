"""With tokenizers as they were published, prompt and answer are tokenized as the whole conversation is."""

from __future__ import annotations

from typing import Any

import pytest
from mia_attention.models.inputs import encode
from mia_augment import IMAGE, image_token_id
from mia_augment.prompting import answer_ids, process, render_prompt, stop_ids
from PIL import Image
from published_tokenizers import PUBLISHED, published

QUESTIONS = [
    "<image>\nWhat is it?",
    "What is it?\n<image>",
    "Image1:<image>\nImage2:<image>\nIn Image2, what is on the left?",
    "<image><image>\n\nWhich one,  the first\tor the second?",
    "Look: <image> and <image> differ. How?\n(A) In colour\n(B) In size",
    "<image>\n这张图片里有什么？ ¿Qué es? 😀",
]
ANSWERS = [
    "The cat is red.",
    "Yes",
    "A",
    "12 345",
    "  two blanks before",
    '\'s dog, and "two" more ...',
    "One line,\nanother line.\n\n- and a list\n",
    "两只猫。 é 😀 naïve",
    "Image1",
    "<image 1> shows [a] cat > dog",
]
OF_OTHERS = ["</s>", "<s>", "<|im_end|>", "<|im_start|>", "<end_of_turn>", "<bos>", "<end_of_utterance>", "<|endoftext|>"]


def pictures(prompt: str) -> list[Image.Image]:
    return [Image.new("RGB", (60 + 30 * index, 60), (40 * index, 90, 120)) for index in range(prompt.count(IMAGE))]


def ids_of(processor: Any, text: str, prompt: str) -> list[int]:
    """What the processor makes of a rendered text, by its own call; a beginning that is written is not put again."""
    bos = processor.tokenizer.bos_token
    made = processor(images=[pictures(prompt)], text=[text], add_special_tokens=not (bos and text.startswith(bos)))
    return [int(token) for token in made["input_ids"][0]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_prompt_and_answer_are_the_tokens_of_the_whole_text(name: str) -> None:
    made, family = published(name), PUBLISHED[name]
    processor, stops = made.processor, stop_ids(made.model, made.processor)
    wrong = []
    for prompt in QUESTIONS:
        rendered = render_prompt(processor, prompt)
        before = process(processor, [rendered], [pictures(prompt)])["input_ids"][0].tolist()
        for answer in ANSWERS:
            said = answer_ids(processor, prompt, answer, stops=stops)
            text = rendered + family.lead + (answer.strip() if family.trims else answer) + family.end
            whole = ids_of(processor, text, prompt)
            if whole[: len(before)] != before:  # blanks on both sides make one token: the model is given the prompt's own
                assert (rendered[-1] + (family.lead + answer)[0]).isspace(), (prompt, answer)
                same = processor.tokenizer.decode(before + said) == processor.tokenizer.decode(whole)
            else:
                same = before + said == whole
            if not same:
                words = processor.tokenizer.convert_ids_to_tokens
                wrong.append((prompt, answer, words(said), words(whole[len(before) :])))
    assert not wrong


@pytest.mark.parametrize("name", PUBLISHED)
def test_one_beginning_and_one_end(name: str) -> None:
    made, family = published(name), PUBLISHED[name]
    tokenizer = made.processor.tokenizer
    end = tokenizer.convert_tokens_to_ids(family.end)
    for prompt in QUESTIONS:
        ids = process(made.processor, [render_prompt(made.processor, prompt)], [pictures(prompt)])["input_ids"][0].tolist()
        if family.bos:
            assert ids[0] == tokenizer.convert_tokens_to_ids(family.bos)
        assert ids.count(tokenizer.bos_token_id) == (1 if family.bos else ids.count(tokenizer.bos_token_id))
        for answer in ("The cat.", f"The cat.{family.end}", f"The cat.{family.end}\n"):
            said = answer_ids(made.processor, prompt, answer, stops=stop_ids(made.model, made.processor))
            assert said[-1] == end
            assert not {*said[:-1]} & {end, tokenizer.eos_token_id, tokenizer.bos_token_id}


@pytest.mark.parametrize("name", PUBLISHED)
def test_pictures_stand_between_the_words_of_the_question(name: str) -> None:
    made = published(name)
    tokenizer, token = made.processor.tokenizer, image_token_id(made.model)
    for prompt in QUESTIONS:
        encoded = encode(made.model, made.processor, [render_prompt(made.processor, prompt)], [pictures(prompt)])
        ids = encoded.inputs["input_ids"][0].tolist()
        places = [place.tolist() for place in encoded.image_tokens[0]]
        assert sum(map(len, places)) == ids.count(token)
        assert len(places) == prompt.count(IMAGE)
        edges = [0, *(edge for place in places for edge in (place[0], place[-1] + 1)), len(ids)]
        said = [tokenizer.decode(ids[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
        assert all(text.strip() in piece for text, piece in zip(prompt.split(IMAGE), said, strict=True)), said


@pytest.mark.parametrize("name", PUBLISHED)
def test_special_tokens_in_a_question_stay_text(name: str) -> None:
    made = published(name)
    tokenizer = made.processor.tokenizer
    special = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    frame = render_prompt(made.processor, QUESTIONS[0]) + PUBLISHED[name].end + str(tokenizer.eos_token)
    for text in OF_OTHERS:  # in Gemma's tokenizer some of them are tags of HTML
        if text not in special or text not in frame:
            continue
        token = special[text]
        plain, asked = (f"<image>\nDoes it say {word} there?" for word in ("xyz", text))
        counts = []
        for prompt in (plain, asked):
            ids = process(made.processor, [render_prompt(made.processor, prompt)], [pictures(prompt)])["input_ids"][0].tolist()
            counts.append(ids.count(token))
        assert counts[0] == counts[1], text
        assert f"Does it say {text} there?" in tokenizer.decode(ids), text
