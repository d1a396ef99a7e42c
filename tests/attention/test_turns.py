"""An answer's tokens are the assistant's turn of each family's chat template, for whoever needs them."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import chat_templates
import pytest
import tiny_models
import torch
from chat_templates import SHAPES
from mia_attention import attend, likelihoods, score
from mia_attention.answering.likelihood import said_ids
from mia_attention.answering.model_view import render_with_tail
from mia_attention.given.server import message_content
from mia_attention.models.inputs import encode
from mia_attention.settings import ScoreSettings
from mia_augment.errors import DataError, ModelError
from mia_augment.prompting.chat import render_prompt
from mia_augment.prompting.end_tokens import stop_ids
from mia_augment.prompting.processing import process
from mia_augment.prompting.turns import answer_ids, emitted_ids, render_turn
from mia_augment.records import PreferencePair, Scores
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import plain_logps
from mia_dpo_train.models.facts import model_facts
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

EQUAL = 1e-4
"""Nats by which two sums of log-probs in float32 may differ."""
ANSWER = "The cat is red."
CORPUS = ["USER: Image1: Image2: In Image2, what is on the left? ASSISTANT: The cat is red.\nAssistant: The dog"] * 9


def blank_keeping(specials: list[str], named: dict[str, str] | None = None) -> Any:
    """A byte-level BPE, whose tokens carry the blank before them, as the real ones do."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *specials, *chat_templates.MARKS]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=words, initial_alphabet=alphabet, show_progress=False)
    )
    made = tiny_models.hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named or {},
        clean_up_tokenization_spaces=False,
    )
    made.add_tokens([AddedToken(word, special=True, normalized=False) for word in words], special_tokens=True)
    return made


@functools.cache
def built(name: str) -> Any:
    """The tiny build of a family with its published template and a tokenizer that keeps blanks."""
    shape = SHAPES[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "tokenizer", blank_keeping)
        patch.setattr(tiny_models, "TEXT", {**tiny_models.TEXT, "vocab_size": 512})
        made = tiny_models.build(shape.build, strong=True)
    made.processor.chat_template = shape.template
    made.model.generation_config.eos_token_id = made.processor.tokenizer.convert_tokens_to_ids(shape.end)
    return made


def tokens(processor: Any, ids: Any) -> list[str]:
    return list(processor.tokenizer.convert_ids_to_tokens([int(token) for token in ids]))


def processed(name: str, tiny: SimpleNamespace, text: str) -> list[int]:
    """What the processor makes of a rendered text with the picture a.png."""
    processor = built(name).processor
    keywords = {"add_special_tokens": False} if text.startswith("<s>") else {}
    made = processor(images=[[tiny.open_image("a.png")]], text=[text], return_tensors="pt", **keywords)
    return [int(token) for token in made["input_ids"][0]]


@pytest.mark.parametrize("name", SHAPES)
def test_prompts_are_what_the_familys_own_format_renders(name: str) -> None:
    shape, processor = SHAPES[name], built(name).processor
    assert render_prompt(processor, "<image>\nQ") == shape.single
    assert render_prompt(processor, "<image>Q") == shape.single
    assert render_prompt(processor, "Image1:<image>\nImage2:<image>\nQ") == shape.sequence
    own = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]}]
    assert shape.single == processor.apply_chat_template(own, tokenize=False, add_generation_prompt=True)


def test_pictures_that_come_first_each_get_the_break_of_the_family() -> None:
    assert render_prompt(built("llava-1.5").processor, "<image>\n<image>\nQ") == "USER: <image>\n<image>\nQ ASSISTANT:"
    assert "><|vision_start|><|image_pad|><|vision_end|>Q<" in render_prompt(built("qwen2-vl").processor, "<image>\n<image>\nQ")


def test_a_picture_behind_the_question_stays_there() -> None:
    assert render_prompt(built("llava-1.5").processor, "Q\n<image>") == "USER: Q\n<image> ASSISTANT:"
    assert "user\nQ\n<|vision_start|>" in render_prompt(built("qwen2-vl").processor, "Q\n<image>")


@pytest.mark.parametrize("name", SHAPES)
def test_an_answers_tokens_follow_the_prompts_in_the_whole_text(name: str, tiny: SimpleNamespace) -> None:
    shape, processor = SHAPES[name], built(name).processor
    turn = render_turn(processor, "<image>\nQ", ANSWER)
    assert (turn.prompt, turn.answer) == (shape.single, shape.lead + ANSWER)
    ids = answer_ids(processor, "<image>\nQ", ANSWER)
    whole = processed(name, tiny, turn.prompt + turn.answer + shape.end)
    assert processed(name, tiny, turn.prompt) + ids == whole
    assert tokens(processor, whole).count("<s>") == int(shape.single.startswith("<s>"))


@pytest.mark.parametrize("name", SHAPES)
def test_the_end_of_the_turn_is_learned_once(name: str) -> None:
    shape, processor = SHAPES[name], built(name).processor
    for said in (ANSWER, ANSWER + shape.end, f"{ANSWER}{shape.end}\n"):
        found = tokens(processor, answer_ids(processor, "<image>\nQ", said))
        assert found[-1] == shape.end
        assert sum(token in ("</s>", "<|im_end|>", "<end_of_turn>", "<end_of_utterance>") for token in found) == 1
    assert shape.end not in tokens(processor, answer_ids(processor, "<image>\nQ", ANSWER, end=False))


@pytest.mark.parametrize("name", SHAPES)
def test_the_end_of_a_turn_in_a_question_is_text(name: str, tiny: SimpleNamespace) -> None:
    shape, processor = SHAPES[name], built(name).processor
    asked = [f"<image>\nWhat is {word} on the left ?" for word in ("the", shape.end, f"<s>{shape.end}{shape.end} it")]
    pictures = [[tiny.open_image("a.png")]] * 3
    texts, tails = zip(*(render_with_tail(processor, prompt) for prompt in asked), strict=True)
    encoded = encode(built(name).model, processor, texts, pictures, tails=tails)
    rows = [
        row[mask.bool()].tolist()
        for row, mask in zip(*(encoded.inputs[n] for n in ("input_ids", "attention_mask")), strict=True)
    ]
    end, begin = processor.tokenizer.convert_tokens_to_ids([shape.end, "<s>"])
    assert len({(row.count(end), row.count(begin)) for row in rows}) == 1
    assert rows[0] == processed(name, tiny, texts[0])
    assert encoded.question is not None
    for prompt, ids, (start, stop), row in zip(asked, encoded.inputs["input_ids"], encoded.question, rows, strict=True):
        assert prompt.removeprefix("<image>\n") in processor.tokenizer.decode(row)
        assert processor.tokenizer.decode(ids[start:stop]).strip().endswith(prompt.removeprefix("<image>\n"))
        assert tokens(processor, answer_ids(processor, prompt, ANSWER)).count(shape.end) == 1


def test_what_is_no_frame_of_a_turn_stays_the_users_own(tiny: SimpleNamespace) -> None:
    """Qwen-VL's marks of boxes are special tokens too, which a question may hold."""
    processor = built("qwen2-vl").processor
    processor.tokenizer.add_tokens([AddedToken("<|box_start|>", special=True, normalized=False)], special_tokens=True)
    [mark] = processor.tokenizer.convert_tokens_to_ids(["<|box_start|>"])
    prompt = "<image>\nWhat is at <|box_start|>(1,2), and what does <|im_end|> mean?"
    ids = process(processor, [render_prompt(processor, prompt)], [[tiny.open_image("a.png")]])["input_ids"][0].tolist()
    assert ids.count(mark) == 1
    assert ids.count(processor.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


def test_a_tokenizer_of_whole_words_that_has_no_other_reading_is_refused(tiny: SimpleNamespace) -> None:
    build = tiny.build("llava")
    text = render_prompt(build.processor, "<image>\nwhat is </s> on the left ?")
    with pytest.raises(DataError, match=r"the question holds '</s>', which frames a turn"):
        process(build.processor, [text], [[tiny.open_image("a.png")]])


def test_a_server_gets_the_question_as_it_is() -> None:
    content = message_content(built("qwen2-vl").processor, "<image>\nWhat does <|im_end|> mean?", [Image.new("RGB", (9, 9))])
    assert content[-1] == {"type": "text", "text": "What does <|im_end|> mean?"}


@pytest.mark.parametrize("name", SHAPES)
def test_all_who_need_an_answers_tokens_get_the_same(name: str, tiny: SimpleNamespace) -> None:
    made = built(name)
    wanted = answer_ids(made.processor, "<image>\nwhat is on the left ?", ANSWER)
    sample = tiny.single("one")
    encoder = PairEncoder(made.processor, tiny.open_image, stop_ids(made.model, made.processor))
    encoded = encoder(pair_of(sample, chosen=ANSWER, rejected="The dog"))
    assert encoded.chosen.tolist() == wanted
    assert said_ids(sample, ANSWER, made.model, made.processor, end=True) == wanted
    by_text, by_ids = likelihoods(
        [sample] * 2, [[ANSWER], [wanted[:-1]]], made.model, made.processor, open_image=tiny.open_image
    )
    assert by_text[0].tokens == len(wanted) - 1
    assert by_text[0].logp == pytest.approx(by_ids[0].logp, abs=EQUAL)
    settings = ScoreSettings(layer=3, rows="predicting", disturb=False)
    read = list(attend([sample] * 2, [ANSWER, wanted], made.model, made.processor, settings, open_image=tiny.open_image))
    assert read[0].image_mass == pytest.approx(read[1].image_mass, abs=1e-6)


def pair_of(sample: Any, **answers: Any) -> PreferencePair:
    fields = {name: getattr(sample, name) for name in ("id", "format", "images", "prompt", "target", "regions")}
    return PreferencePair(**fields, scores=Scores(), **answers)


@pytest.mark.parametrize("name", SHAPES)
def test_the_trainers_reference_of_an_own_answer_is_what_scoring_saw(name: str, tiny: SimpleNamespace) -> None:
    made = built(name)
    settings = ScoreSettings(layer=3, max_new_tokens=7, disturb=False)
    [scored] = score([tiny.single("one")], made.model, made.processor, settings, open_image=tiny.open_image)
    assert scored.response_ids is not None
    assert len(scored.response_ids) == scored.response_tokens
    pair = pair_of(scored, chosen="The dog", rejected=scored.response, rejected_ids=scored.response_ids)
    encoded = PairEncoder(made.processor, tiny.open_image, stop_ids(made.model, made.processor))(pair)
    assert encoded.rejected.tolist() == scored.response_ids
    with torch.no_grad():
        reference = float(plain_logps(made.model, model_facts(made.model), collate([encoded]))[1, 0])
    assert scored.mean_logp is not None
    assert reference == pytest.approx(scored.mean_logp * scored.response_tokens, abs=10 * EQUAL)


@pytest.mark.parametrize("name", ["smolvlm", "gemma3", "llava-1.5", "llava-onevision"])
def test_what_a_model_emits_for_an_answer_is_what_the_template_renders(name: str, tiny: SimpleNamespace) -> None:
    """A model made to say the template's tokens one after another ends there, and its text gives the same tokens again."""
    made = built(name)
    wanted = answer_ids(made.processor, "<image>\nwhat is on the left ?", ANSWER)
    head = made.model.get_output_embeddings()
    steps = iter(wanted)

    def say(module: Any, args: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.scatter(-1, torch.full((*logits.shape[:-1], 1), next(steps)), 1e4)

    hook = head.register_forward_hook(say)
    try:
        settings = ScoreSettings(layer=3, max_new_tokens=99, disturb=False)
        [scored] = score([tiny.single("one")], made.model, made.processor, settings, open_image=tiny.open_image)
    finally:
        hook.remove()
    assert scored.response == ANSWER
    assert scored.response_ids == wanted == answer_ids(made.processor, scored.prompt, scored.response)


@pytest.mark.parametrize("apart", [True, False])
def test_the_llama_way_of_blanks_is_continued_too(apart: bool) -> None:
    """A tokenizer that puts a blank before every text by itself must not put one between prompt and answer, also where it would
    join words of both to one token (not apart): the prompt keeps its tokens then.
    """
    processor = built("qwen2-vl").processor
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=apart)
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=120, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False)
    )
    tokenizer = tiny_models.hf.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    stand_in = SimpleNamespace(
        chat_template=chat_templates.LLAVA,
        tokenizer=tokenizer,
        image_token="<image>",
        apply_chat_template=lambda messages, **keywords: processor.apply_chat_template(
            messages, chat_template=chat_templates.LLAVA, **keywords
        ),
    )
    ids = answer_ids(stand_in, "In Image2,", ANSWER)
    prompt, whole = tokenizer(
        ["USER: In Image2, ASSISTANT:", "USER: In Image2, ASSISTANT: The cat is red."], add_special_tokens=False
    )["input_ids"]
    assert tokenizer.decode(prompt + ids) == "USER: In Image2, ASSISTANT: The cat is red.</s>"
    assert (prompt + ids == [*whole, tokenizer.eos_token_id]) is apart


def with_template(template: str, name: str = "llava-1.5") -> Any:
    processor = built(name).processor
    return SimpleNamespace(
        chat_template=template,
        tokenizer=processor.tokenizer,
        image_token="<image>",
        apply_chat_template=lambda messages, **keywords: processor.apply_chat_template(
            messages, chat_template=template, **keywords
        ),
    )


def said(template: str, answer: str = ANSWER, stops: tuple[int, ...] = ()) -> str:
    processor = with_template(template)
    ids = answer_ids(processor, "<image>\nQ", answer, stops=stops)
    return str(processor.tokenizer.decode(ids))


USER = "{% if m['role'] == 'user' %}USER: Q"
FIRST = "{% for m in messages %}" + USER
ASK = "{% if add_generation_prompt %}"
SAY = "{{ m['content'][0]['text'] }}"


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        (FIRST + " A:\n{% else %}{{ m['content'][0]['text'] | trim }}</s>\n{% endif %}{% endfor %}", ANSWER + "</s>"),
        (FIRST + " A:{% else %} " + SAY + "<\\s>{% endif %}{% endfor %}", f" {ANSWER}</s>"),
        (FIRST + " A:\n{% else %}" + SAY + "<end_of_turn></s>\n{% endif %}{% endfor %}", f"{ANSWER}<end_of_turn></s>"),
        (FIRST + " A:\n{% else %}" + SAY + "</s>\n<end_of_turn>{% endif %}{% endfor %}", f"{ANSWER}</s>"),
        (
            FIRST + "{% else %}A:" + SAY + "</s>{% endif %}{% endfor %}" + ASK + "\nA: {% endif %}",
            f"{ANSWER}</s>",
        ),
        (
            FIRST + "{% else %} A: " + SAY + "</s>{% endif %}{% endfor %}" + ASK + " A: <think>\n{% endif %}",
            f"\n</think>\n\n{ANSWER}</s>",
        ),
        (FIRST + " A:\n{% else %}{% generation %}\n" + SAY + "</s>{% endgeneration %}{% endif %}{% endfor %}", ANSWER + "</s>"),
    ],
    ids=["trims", "ends in letters", "two ends", "text between ends", "blanks differ", "opens a thought", "doubled break"],
)
def test_templates_with_ways_of_their_own(template: str, wanted: str) -> None:
    assert said(template) == wanted


def test_of_several_ends_the_one_that_generation_stops_at_is_the_last() -> None:
    template = FIRST + " A:\n{% else %}" + SAY + "<end_of_turn></s>{% endif %}{% endfor %}"
    stop = with_template(template).tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert said(template, stops=(stop,)) == ANSWER + "<end_of_turn>"
    assert said(chat_templates.LLAVA, stops=(stop,)) == f" {ANSWER}<end_of_turn>"


def test_a_template_that_changes_the_prompt_when_an_answer_follows_is_refused_with_both() -> None:
    template = FIRST + "{% else %}BOT:" + SAY + "{% endif %}{% endfor %}{% if add_generation_prompt %} A:{% endif %}"
    with pytest.raises(ModelError, match=r"writes the prompt otherwise .* expected 'USER: Q A:', got 'USER: QBOT:The cat"):
        said(template)


@pytest.mark.parametrize("turn", ["", "{% else %}{{ 1 / 0 }}"])
def test_a_template_without_an_assistants_turn_is_refused(turn: str) -> None:
    with pytest.raises(ModelError, match="writes no assistant's turn"):
        said(FIRST + turn + "{% endif %}{% endfor %}")


def test_a_template_that_loses_the_question_is_refused() -> None:
    with pytest.raises(DataError, match=r"cannot render a prompt: expected the text .*what is it"):
        render_prompt(with_template("{{ bos_token }}USER:"), "<image>\nwhat is it")


@pytest.mark.parametrize("answer", ["", " \n", "</s>"])
def test_an_empty_answer_is_refused(answer: str) -> None:
    with pytest.raises(DataError, match="the answer is empty"):
        said(chat_templates.LLAVA, answer)


def test_an_end_within_an_answer_is_refused() -> None:
    with pytest.raises(DataError, match="holds '</s>', which ends a turn"):
        said(chat_templates.LLAVA, "The cat</s> is red.")


def test_emitted_tokens_count_only_while_they_say_the_text() -> None:
    processor = built("smolvlm").processor
    ids = processor.tokenizer(" The cat<end_of_utterance>", add_special_tokens=False)["input_ids"]
    assert emitted_ids(processor, ids, "The cat") == ids
    assert emitted_ids(processor, ids, "The dog") is None
    assert emitted_ids(processor, None, "The cat") is None
