"""No row, however odd, ends an import: it gives a pair that can be trained on, or a reason."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mia_augment.checks.pair_checks import pair_problem
from mia_augment.records import PreferencePair
from mia_select.importing import IMPORT_FORMATS
from mia_select.importing.pairs import SkippedRow, to_pair
from mia_select.importing.written_pictures import NamedPictures

KEYS = (
    *("chosen", "rejected", "prompt", "question", "images", "image", "image_path", "messages", "conversations", "conversation"),
    *("role", "from", "content", "value", "type", "text", "image_url", "url", "path", "bytes", "system", "history", "tools"),
    *("instruction", "input", "query", "response", "rejected_response", "rejected_messages", "rejected_images", "id", "idx"),
    *("mia", "videos", "tool_calls", "user", "assistant", "human", "gpt", "format", "regions", "target", "scores"),
)
WORDS = (
    *("user", "assistant", "system", "human", "gpt", "text", "image", "<image>What?", "One", "", "a.png"),
    *("data:,", "[]", "{}", "\ud83d", "\0"),
)
keys = st.sampled_from(KEYS)
plain = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats()),
    *(st.sampled_from(WORDS), st.text(max_size=8), st.binary(max_size=8)),
)
values = st.recursive(
    plain, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=5)), max_leaves=25
)
SOUND: dict[str, Any] = {"prompt": "<image>What?", "chosen": "One", "rejected": "Two", "images": ["a.png"]}
nearly_sound = st.dictionaries(keys, values, max_size=3).map(lambda odd: {**SOUND, **odd})
rows = st.one_of(values, st.dictionaries(keys, values, max_size=8), nearly_sound)


@settings(max_examples=300, deadline=None)
@given(row=rows, fmt=st.sampled_from(IMPORT_FORMATS))
def test_every_row_gives_a_pair_or_a_reason(row: Any, fmt: str) -> None:
    record = to_pair(row, 7, fmt, NamedPictures(lambda _: "stored.png"))
    if isinstance(record, SkippedRow):
        assert record.row == 7
        kind, colon, rest = record.reason.partition(":")
        assert kind.strip()
        assert colon
        assert rest.strip()
        assert len(record.reason) < 1000
    else:
        assert pair_problem(record) is None
        assert PreferencePair.model_validate_json(json.dumps(json.loads(record.model_dump_json()))) == record


def test_a_sound_row_gives_a_pair() -> None:
    record = to_pair(SOUND, 1, "auto", NamedPictures(None))
    assert isinstance(record, PreferencePair)
    assert (record.prompt, record.chosen, record.rejected, record.images) == ("<image>What?", "One", "Two", ["a.png"])
