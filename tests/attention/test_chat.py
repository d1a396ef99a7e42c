"""Rendered prompts keep every picture at its place, whatever the family's chat template does with it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mia_attention.answering.model_view import render_with_tail
from mia_attention.models.inputs import encode
from mia_augment import image_token_id
from mia_augment.errors import ModelError
from mia_augment.prompting.chat import render_prompt

PROMPT = "Image1:<image>\nImage2:<image>\nIn Image2, what is it?"
HOISTING = (
    "{% for m in messages %}USER: {% for p in m['content'] if p['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for p in m['content'] if p['type'] == 'text' %}{{ p['text'] }}{% endfor %}{% endfor %} ASSISTANT:"
)
TRIMMING = (
    "<start_of_turn>user\n{% for p in messages[0]['content'] %}{% if p['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ p['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n<start_of_turn>model\n"
)
FRAMING = (
    "user\n{% for p in messages[0]['content'] %}{% if p['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\nassistant\n"
)


def render(tiny: SimpleNamespace, name: str, template: str, prompt: str = PROMPT) -> str:
    processor = tiny.build(name).processor
    kept, processor.chat_template = processor.chat_template, template
    try:
        return render_prompt(processor, prompt)
    finally:
        processor.chat_template = kept


def test_template_that_moves_images_to_the_front_gets_them_inline(tiny: SimpleNamespace) -> None:
    rendered = render(tiny, "llava", HOISTING)
    assert rendered == "USER: Image1:<image>\nImage2:<image>\nIn Image2, what is it? ASSISTANT:"


def test_every_familys_processor_keeps_each_picture_behind_its_name(tiny: SimpleNamespace) -> None:
    """Placeholders become each family's own tokens (frames, tiles, line breaks), and the text between them stays there."""
    for name in tiny.families:
        build = tiny.build(name)
        prompt = "Image1 : <image> \n Image2 : <image> \n what is on the left ?"
        pictures = [tiny.picture(100, 60, 1), tiny.picture(70, 130, 2)]
        encoded = encode(build.model, build.processor, [render_prompt(build.processor, prompt)], [pictures])
        words = build.processor.tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"][0].tolist())
        token = build.processor.tokenizer.convert_ids_to_tokens(image_token_id(build.model))
        first, second = encoded.image_tokens[0]
        assert {words[position] for places in (first, second) for position in places.tolist()} == {token}, name
        assert words.count(token) == len(first) + len(second), name
        assert words.index("Image1") < first[0] < first[-1] < words.index("Image2") < second[0], name
        assert second[-1] < words.index("what"), name
        alone = encode(build.model, build.processor, [render_prompt(build.processor, "<image> what")], [pictures[:1]])
        if name != "llava_onevision":  # among several pictures it drops the tiles
            assert len(alone.image_tokens[0][0]) == len(first), name


def test_gemma_writes_the_token_that_begins_an_image(tiny: SimpleNamespace) -> None:
    expected = "Image1:<start_of_image>Image2:<start_of_image>In Image2, what is it?<end_of_turn>"
    assert expected in render(tiny, "gemma3", TRIMMING)


def test_gemma_inline_when_its_processor_names_the_soft_token(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.build("gemma3").processor, "image_token", "<image_soft_token>")
    assert "Image2:<start_of_image>In Image2" in render(tiny, "gemma3", TRIMMING)


def test_qwen_frames_stay_around_each_image(tiny: SimpleNamespace) -> None:
    frame = "<|vision_start|><|image_pad|><|vision_end|>"
    assert f"Image1:{frame}\nImage2:{frame}\nIn Image2, what is it?<|im_end|>" in render(tiny, "qwen2_vl", FRAMING)


def test_a_processor_without_template_is_refused(tiny: SimpleNamespace) -> None:
    with pytest.raises(ModelError, match="LlavaProcessor has no chat template"):
        render(tiny, "llava", None)  # type: ignore[arg-type]


def test_tail_is_what_follows_the_question(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    text, tail = render_with_tail(build.processor, "Image1:<image>\nIn Image1 , what is on the left ?")
    assert tail == " assistant :"
    encoded = encode(build.model, build.processor, [text], [[tiny.picture(60, 60)]], tails=[tail])
    assert encoded.question is not None
    start, end = encoded.question[0]
    words = build.processor.tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"][0, start:end].tolist())
    assert words == ["\n", "In", "Image1", ",", "what", "is", "on", "the", "left", "?"]


def test_a_tail_that_follows_without_a_space_is_not_part_of_the_question(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    text = "user : <image> what is on the left ?\nassistant :"
    encoded = encode(build.model, build.processor, [text], [[tiny.picture(60, 60)]], tails=["\nassistant :"])
    assert encoded.question is not None
    start, end = encoded.question[0]
    words = build.processor.tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"][0, start:end].tolist())
    assert words == ["what", "is", "on", "the", "left", "?"]


def test_a_prompt_that_ends_with_its_image_has_no_question_rows(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    text, tail = render_with_tail(build.processor, "what is in\n<image>")
    encoded = encode(build.model, build.processor, [text], [[tiny.picture(60, 60)]], tails=[tail])
    assert encoded.question is not None
    start, end = encoded.question[0]
    assert start == end
