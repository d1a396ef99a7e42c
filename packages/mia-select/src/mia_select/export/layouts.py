"""How other trainers write a preference pair, and how to read it again.

Each layout keeps the prompt with its placeholders, both answers and the images in the columns its trainer expects. One more
column, `mia`, holds as a JSON string what they have no place for (id, format, regions, target, scores, names of the images), so
that reading gives the same pair; trainers ignore it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from mia_augment.chat import message_parts
from mia_augment.errors import DataError
from mia_augment.files import summary
from mia_augment.records import IMAGE, PreferencePair, Region
from pydantic import ValidationError

EXTRA = "mia"
_NAMED_TARGET = re.compile(r"\bIn Image(\d+)\b")

Row = dict[str, Any]


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
    write: Callable[[Texts], Row]
    read: Callable[[Row], Texts]


def _messages(role: str, content: list[dict[str, str]]) -> list[Row]:
    return [{"role": role, "content": content}]


def _joined(messages: Any) -> str:
    """Text of a message, its image parts written as placeholders."""
    content = messages[0]["content"]
    if isinstance(content, str):
        return content
    return "".join(IMAGE if part["type"] == "image" else part["text"] for part in content)


def _write_trl(texts: Texts) -> Row:
    return {
        "images": texts.images,
        "prompt": _messages("user", message_parts(texts.prompt)),
        "chosen": _messages("assistant", [{"type": "text", "text": texts.chosen}]),
        "rejected": _messages("assistant", [{"type": "text", "text": texts.rejected}]),
    }


def _read_trl(row: Row) -> Texts:
    return Texts(_joined(row["prompt"]), _joined(row["chosen"]), _joined(row["rejected"]), list(row["images"]))


def _write_llama_factory(texts: Texts) -> Row:
    return {
        "conversations": [{"from": "human", "value": texts.prompt}],
        "chosen": {"from": "gpt", "value": texts.chosen},
        "rejected": {"from": "gpt", "value": texts.rejected},
        "images": texts.images,
    }


def _read_llama_factory(row: Row) -> Texts:
    (turn,) = row["conversations"]
    return Texts(turn["value"], row["chosen"]["value"], row["rejected"]["value"], list(row["images"]))


def _write_ms_swift(texts: Texts) -> Row:
    return {
        "messages": [{"role": "user", "content": texts.prompt}, {"role": "assistant", "content": texts.chosen}],
        "rejected_response": texts.rejected,
        "images": texts.images,
    }


def _read_ms_swift(row: Row) -> Texts:
    user, assistant = row["messages"]
    return Texts(user["content"], assistant["content"], row["rejected_response"], list(row["images"]))


def _write_mia_dpo(texts: Texts) -> Row:
    return {
        "image": texts.images if len(texts.images) > 1 else texts.images[0],
        "prompt": texts.prompt,
        "chosen": texts.chosen,
        "rejected": texts.rejected,
        "gt": texts.chosen,
    }


def _read_mia_dpo(row: Row) -> Texts:
    image = row["image"]
    return Texts(row["prompt"], row["chosen"], row["rejected"], [image] if isinstance(image, str) else list(image))


LAYOUTS: dict[str, Layout] = {
    "trl": Layout("train.jsonl", _write_trl, _read_trl),
    "llama-factory": Layout("mia_pairs.json", _write_llama_factory, _read_llama_factory),
    "ms-swift": Layout("train.jsonl", _write_ms_swift, _read_ms_swift),
    "mia-dpo": Layout("mia_dpo.json", _write_mia_dpo, _read_mia_dpo),
    "parquet": Layout("train.parquet", _write_trl, _read_trl),
}
"""`parquet` has TRL's columns, with the pictures inside the file (extra `parquet`)."""


def to_row(pair: PreferencePair, images: list[str], layout: Layout) -> Row:
    """A pair as its trainer wants it; `images` are the paths to write."""
    row = layout.write(Texts(pair.prompt, pair.chosen, pair.rejected, images))
    extra = pair.model_dump_json(exclude={"prompt", "chosen", "rejected"})
    return {"id": pair.id, **row, EXTRA: extra}


def to_pair(row: Row, layout: Layout, name: str) -> PreferencePair:
    """The pair of a row.

    A row that another tool wrote has no column `mia`: several images make a `sequence`, one a `single`; the target is the one
    that the prompt names with "In ImageN", else the first.

    Raises:
        DataError: a column is missing or of another shape, or placeholders and images disagree; `name` says which row.
    """
    try:
        texts = layout.read(row)
        own = row.get(EXTRA)
        extra = json.loads(own) if own else _guess(texts, str(row.get("id") or name))
        if len(extra["images"]) != len(texts.images):
            raise ValueError(f"expected {len(extra['images'])} images as when it was exported, got {len(texts.images)}")
        return PreferencePair.model_validate(
            {**extra, "prompt": texts.prompt, "chosen": texts.chosen, "rejected": texts.rejected}
        )
    except ValidationError as error:
        raise DataError(f"{name}: {summary(error)}") from error
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(f"{name}: not a preference pair in this format: {type(error).__name__}: {error}") from error


def _guess(texts: Texts, record_id: str) -> Row:
    regions = [Region(image=index, label=f"Image{index + 1}") for index in range(len(texts.images))]
    named = _NAMED_TARGET.search(texts.prompt)
    target = int(named[1]) - 1 if named else 0
    return {
        "id": record_id,
        "format": "sequence" if len(regions) > 1 else "single",
        "images": texts.images,
        "regions": [region.model_dump() for region in regions],
        "target": target if 0 <= target < len(regions) else 0,
        "scores": {},
    }
