"""How other trainers write a preference pair.

Each layout keeps the prompt with its placeholders, both answers and the images in the columns its trainer expects. One more
column, `mia`, holds as a JSON string what they have no place for (id, format, regions, target, scores, names of the images), so
that reading gives the same pair; trainers ignore it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mia_augment import DataError, PreferencePair
from mia_augment.prompting import message_parts, without_first_break
from mia_augment.storage import clear_left_overs_of, read_json, write_json

EXTRA = "mia"
"""Column with what other trainers have no place for, as a JSON string."""

DATASET_INFO = "dataset_info.json"
DATASET = "mia_pairs"
"""Name of the dataset in LLaMA-Factory's `dataset_info.json`."""

ExportedRow = dict[str, Any]


class Texts(NamedTuple):
    """What every layout holds."""

    prompt: str
    chosen: str
    rejected: str
    images: list[str]
    rejected_images: list[str] | None = None
    """Under which the same answer is rejected."""


def _messages(role: str, content: list[dict[str, str]]) -> list[ExportedRow]:
    return [{"role": role, "content": content}]


def write_trl(texts: Texts) -> ExportedRow:
    return {
        "images": texts.images,
        "prompt": _messages("user", without_first_break(message_parts(texts.prompt))),
        "chosen": _messages("assistant", [{"type": "text", "text": texts.chosen}]),
        "rejected": _messages("assistant", [{"type": "text", "text": texts.rejected}]),
    }


def write_llama_factory(texts: Texts) -> ExportedRow:
    return {
        "conversations": [{"from": "human", "value": texts.prompt}],
        "chosen": {"from": "gpt", "value": texts.chosen},
        "rejected": {"from": "gpt", "value": texts.rejected},
        "images": texts.images,
    }


def write_ms_swift(texts: Texts) -> ExportedRow:
    rejected = {"rejected_images": texts.rejected_images} if texts.rejected_images else {"rejected_response": texts.rejected}
    return {
        "messages": [{"role": "user", "content": texts.prompt}, {"role": "assistant", "content": texts.chosen}],
        **rejected,
        "images": texts.images,
    }


def write_mia_dpo(texts: Texts) -> ExportedRow:
    return {
        "image": texts.images if len(texts.images) > 1 else texts.images[0],
        "prompt": texts.prompt,
        "chosen": texts.chosen,
        "rejected": texts.rejected,
        "gt": texts.chosen,
    }


def to_row(
    pair: PreferencePair,
    images: list[str],
    write: Callable[[Texts], ExportedRow],
    rejected_images: list[str] | None = None,
) -> ExportedRow:
    """A plain pair as its trainer wants it; `images` and `rejected_images` are the paths to write."""
    row = write(Texts(pair.prompt, pair.chosen, pair.rejected, images, rejected_images))
    extra = pair.model_dump_json(exclude={"chosen", "rejected"})
    return {"id": pair.id, **row, EXTRA: extra}


def add_to_dataset_info(file: Path) -> None:
    """LLaMA-Factory finds a file by name: enter it into the `dataset_info.json` beside it, keeping what stands there."""
    path = file.with_name(DATASET_INFO)
    known = read_json(path) if path.is_file() else {}
    if not isinstance(known, dict):
        raise DataError(f"{path}: expected an object with the datasets by name; mend or delete it")
    known[DATASET] = {
        "file_name": file.name,
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"},
    }
    clear_left_overs_of(path)
    write_json(path, known)
