"""How other trainers write a preference pair.

Each layout keeps the prompt with its placeholders, both answers and the images in the columns its trainer expects. One more
column, `mia`, holds as a JSON string what they have no place for (id, format, regions, target, scores, names of the images), so
that reading gives the same pair; trainers ignore it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from mia_augment import PreferencePair
from mia_augment.prompting import message_parts, without_first_break

EXTRA = "mia"
"""Column with what other trainers have no place for, as a JSON string."""

ExportedRow = dict[str, Any]


class Texts(NamedTuple):
    """What every layout holds."""

    prompt: str
    chosen: str
    rejected: str
    images: list[str]


@dataclass(frozen=True)
class Layout:
    """One trainer's format."""

    file: str
    """Name of the file in the export folder; `.jsonl` has a row a line, `.json` is one array."""
    write: Callable[[Texts], ExportedRow]


def _messages(role: str, content: list[dict[str, str]]) -> list[ExportedRow]:
    return [{"role": role, "content": content}]


def _write_trl(texts: Texts) -> ExportedRow:
    return {
        "images": texts.images,
        "prompt": _messages("user", without_first_break(message_parts(texts.prompt))),
        "chosen": _messages("assistant", [{"type": "text", "text": texts.chosen}]),
        "rejected": _messages("assistant", [{"type": "text", "text": texts.rejected}]),
    }


def _write_llama_factory(texts: Texts) -> ExportedRow:
    return {
        "conversations": [{"from": "human", "value": texts.prompt}],
        "chosen": {"from": "gpt", "value": texts.chosen},
        "rejected": {"from": "gpt", "value": texts.rejected},
        "images": texts.images,
    }


def _write_ms_swift(texts: Texts) -> ExportedRow:
    return {
        "messages": [{"role": "user", "content": texts.prompt}, {"role": "assistant", "content": texts.chosen}],
        "rejected_response": texts.rejected,
        "images": texts.images,
    }


def _write_mia_dpo(texts: Texts) -> ExportedRow:
    return {
        "image": texts.images if len(texts.images) > 1 else texts.images[0],
        "prompt": texts.prompt,
        "chosen": texts.chosen,
        "rejected": texts.rejected,
        "gt": texts.chosen,
    }


LAYOUTS: dict[str, Layout] = {
    "trl": Layout("train.jsonl", _write_trl),
    "llama-factory": Layout("mia_pairs.json", _write_llama_factory),
    "ms-swift": Layout("train.jsonl", _write_ms_swift),
    "mia-dpo": Layout("mia_dpo.json", _write_mia_dpo),
    "parquet": Layout("train.parquet", _write_trl),
}
"""`parquet` has TRL's columns, with the pictures inside the file (extra `parquet`)."""


def to_row(pair: PreferencePair, images: list[str], layout: Layout) -> ExportedRow:
    """A pair as its trainer wants it; `images` are the paths to write."""
    row = layout.write(Texts(pair.prompt, pair.chosen, pair.rejected, images))
    extra = pair.model_dump_json(exclude={"chosen", "rejected"})
    return {"id": pair.id, **row, EXTRA: extra}
