"""The shapes of published chat templates, written anew and as short as they can be: what each family puts around pictures,
questions and answers, and what its tokenizer calls its special tokens. Imported by name, as tiny_models is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A family's template over the tokens of one of the tiny builds.

    Attributes:
        build: which of `tiny_models.BUILDERS` has its processor.
        template: what the processor is given.
        single: how it renders `<image>\\nQ` up to the answer.
        sequence: likewise `Image1:<image>\\nImage2:<image>\\nQ`.
        lead: what it writes between the generation prompt and the answer.
        end: the token that ends the answer.
    """

    build: str
    template: str
    single: str
    sequence: str
    lead: str
    end: str


TEXTS = "{% for p in m['content'] if p['type'] == 'text' %}"
PICTURES = "{% for p in m['content'] if p['type'] == 'image' %}"
CHATML = "<|im_start|>{{ m['role'] }}\n"
MODEL_TURN = "{% if add_generation_prompt %}"


def in_order(picture: str, text: str = "{{ p['text'] }}") -> str:
    chosen = "{% if p['type'] == 'image' %}" + picture + "{% else %}" + text + "{% endif %}"
    return "{% for p in m['content'] %}" + chosen + "{% endfor %}"


def chatml(picture: str, answer: str = "{{ m['content'][0]['text'] }}") -> str:
    """The Qwen family, and InternVL."""
    said = "{% if m['role'] == 'user' %}" + in_order(picture) + "{% else %}" + answer + "{% endif %}"
    return (
        "{% for m in messages %}"
        + CHATML
        + said
        + "<|im_end|>\n{% endfor %}"
        + MODEL_TURN
        + "<|im_start|>assistant\n{% endif %}"
    )


LLAVA = (
    "{% for m in messages %}{{ m['role'] | upper }}: "
    + PICTURES
    + "<image>\n{% endfor %}"
    + "{% if m['role'] == 'user' %}"
    + TEXTS
    + "{{ p['text'] + ' ' }}{% endfor %}{% else %}"
    + TEXTS
    + "{% generation %}{{ p['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    + MODEL_TURN
    + "ASSISTANT:{% endif %}"
)
LLAVA_MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] "
    + PICTURES
    + "<image>\n{% endfor %}"
    + TEXTS
    + "{{ p['text'] }}{% endfor %} [/INST]{% else %} {{ m['content'][0]['text'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
ONEVISION = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} "
    + PICTURES
    + "<image>{% endfor %}"
    + TEXTS
    + "{{ '\n' + p['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    + MODEL_TURN
    + "<|im_start|>assistant\n{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    + in_order("<image>")
    + "<end_of_utterance>\n{% endfor %}"
    + MODEL_TURN
    + "Assistant:{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    + in_order("<start_of_image>", "{{ p['text'] | trim }}")
    + "<end_of_turn>\n{% endfor %}"
    + MODEL_TURN
    + "<start_of_turn>model\n{% endif %}"
)
PIXTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST]"
    + in_order("[IMG]")
    + "[/INST]{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
THINKING = chatml(QWEN_PICTURE, "<think>\n\n</think>\n\n{{ m['content'][0]['text'] }}").replace(
    "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"
)

QWEN = Shape(
    build="qwen2_vl",
    template=chatml(QWEN_PICTURE),
    single=f"<|im_start|>user\n{QWEN_PICTURE}Q<|im_end|>\n<|im_start|>assistant\n",
    sequence=f"<|im_start|>user\nImage1:{QWEN_PICTURE}\nImage2:{QWEN_PICTURE}\nQ<|im_end|>\n<|im_start|>assistant\n",
    lead="",
    end="<|im_end|>",
)
_LLAVA = Shape(
    build="llava",
    template=LLAVA,
    single="USER: <image>\nQ ASSISTANT:",
    sequence="USER: Image1:<image>\nImage2:<image>\nQ ASSISTANT:",
    lead=" ",
    end="</s>",
)
SHAPES: dict[str, Shape] = {
    "llava-1.5": _LLAVA,
    "llava-next-vicuna": Shape("llava_next", LLAVA, _LLAVA.single, _LLAVA.sequence, " ", "</s>"),
    "llava-next-mistral": Shape(
        build="llava_next",
        template=LLAVA_MISTRAL,
        single="[INST] <image>\nQ [/INST]",
        sequence="[INST] Image1:<image>\nImage2:<image>\nQ [/INST]",
        lead=" ",
        end="</s>",
    ),
    "llava-onevision": Shape(
        build="llava_onevision",
        template=ONEVISION,
        single="<|im_start|>user <image>\nQ<|im_end|><|im_start|>assistant\n",
        sequence="<|im_start|>user \nImage1:<image>\nImage2:<image>\nQ<|im_end|><|im_start|>assistant\n",
        lead="",
        end="<|im_end|>",
    ),
    "qwen2-vl": QWEN,
    "qwen2.5-vl": Shape("qwen2_5_vl", QWEN.template, QWEN.single, QWEN.sequence, "", "<|im_end|>"),
    "qwen3-vl": Shape("qwen3_vl", QWEN.template, QWEN.single, QWEN.sequence, "", "<|im_end|>"),
    "qwen3.5": Shape(
        build="qwen3_5",
        template=THINKING,
        single=QWEN.single + "<think>\n",
        sequence=QWEN.sequence + "<think>\n",
        lead="\n</think>\n\n",
        end="<|im_end|>",
    ),
    "internvl": Shape(
        build="internvl",
        template=chatml("<IMG_CONTEXT>\n"),
        single="<|im_start|>user\n<IMG_CONTEXT>\nQ<|im_end|>\n<|im_start|>assistant\n",
        sequence="<|im_start|>user\nImage1:<IMG_CONTEXT>\nImage2:<IMG_CONTEXT>\nQ<|im_end|>\n<|im_start|>assistant\n",
        lead="",
        end="<|im_end|>",
    ),
    "smolvlm": Shape(
        build="smolvlm",
        template=SMOLVLM,
        single="<|im_start|>User:<image>Q<end_of_utterance>\nAssistant:",
        sequence="<|im_start|>User: Image1:<image>\nImage2:<image>\nQ<end_of_utterance>\nAssistant:",
        lead=" ",
        end="<end_of_utterance>",
    ),
    "idefics3": Shape(
        build="idefics3",
        template=SMOLVLM,
        single="<|im_start|>User:<image>Q<end_of_utterance>\nAssistant:",
        sequence="<|im_start|>User: Image1:<image>\nImage2:<image>\nQ<end_of_utterance>\nAssistant:",
        lead=" ",
        end="<end_of_utterance>",
    ),
    "gemma3": Shape(
        build="gemma3",
        template=GEMMA,
        single="<s><start_of_turn>user\n<start_of_image>Q<end_of_turn>\n<start_of_turn>model\n",
        sequence="<s><start_of_turn>user\nImage1:<start_of_image>Image2:<start_of_image>Q<end_of_turn>\n<start_of_turn>model\n",
        lead="",
        end="<end_of_turn>",
    ),
    "pixtral": Shape(
        build="mistral3",
        template=PIXTRAL,
        single="<s>[INST][IMG]Q[/INST]",
        sequence="<s>[INST]Image1:[IMG]\nImage2:[IMG]\nQ[/INST]",
        lead="",
        end="</s>",
    ),
}
MARKS = ["<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<start_of_turn>", "<end_of_turn>", "<think>", "</think>"]
"""Tokens that the templates write, to be added to a tiny tokenizer."""
