"""Every message that points at the page of errors points at a heading that is there, which quotes it; no heading is idle."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention import (
    capture_attention,
    capture_states,
    choose_heads,
    encode_prompts,
    heads_scaled,
    images_hidden,
    knockout,
    look,
    respond,
)
from mia_attention.capture.hook import _Given, _observe
from mia_attention.models.decoder import check_readable, decoder_layers
from mia_attention.models.families import FAMILIES, Family
from mia_augment import MiaError
from PIL import Image
from tiny_models import build

ROOT = Path(__file__).parents[2]
POINTED = re.compile(r"docs/errors\.md#([\w-]+)")
PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-")


BY_ANCHOR = {anchor(heading): text for heading, text in SECTIONS.items()}
MESSAGES = [path.read_text("utf-8") for path in (ROOT / "packages").glob("*/src/**/*.py")]


def test_messages_point_at_headings_and_every_heading_is_pointed_at() -> None:
    pointed = {found for text in MESSAGES for found in POINTED.findall(text)}
    assert pointed == set(BY_ANCHOR)
    assert len(BY_ANCHOR) == len(SECTIONS)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = build("llava")
    pictures = [Image.new("RGB", (60, 60), name) for name in ("red", "blue")]
    encoded = encode_prompts(made.model, made.processor, ["<image><image>what ?"] * 2, [pictures] * 2)
    return SimpleNamespace(model=made.model, processor=made.processor, pictures=pictures, encoded=encoded, patch=monkeypatch)


def asked(given: SimpleNamespace, pictures: Any = None, question: str = "what ?", **options: Any) -> Any:
    return look(given.model, given.processor, pictures or given.pictures, question, max_new_tokens=2, **options)


def trained(given: SimpleNamespace) -> None:
    given.model.train()
    asked(given)


def captured_nothing(given: SimpleNamespace) -> None:
    with capture_attention(given.model, [1]) as rows:
        pass
    rows.attention()


def states_of_nothing(given: SimpleNamespace) -> None:
    with capture_states(given.model, [1]) as states:
        pass
    states.at(1)


def ran_twice(given: SimpleNamespace) -> None:
    with capture_attention(given.model, [1]):
        given.model(**given.encoded.inputs)
        given.model(**given.encoded.inputs)


def captured_twice(given: SimpleNamespace) -> None:
    with capture_attention(given.model, [1]), capture_attention(given.model, [1]):
        pass


def in_another_thread(given: SimpleNamespace) -> None:
    told: list[BaseException] = []

    def run() -> None:
        try:
            given.model(**given.encoded.inputs)
        except MiaError as error:
            told.append(error)

    with capture_attention(given.model, [1]):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    raise told[0]


def within(context: Any) -> None:
    with context:
        pass


def another_batch(given: SimpleNamespace) -> None:
    with images_hidden(given.model, given.encoded, [0]):
        given.model(input_ids=torch.full((3, 4), 30))


def masked_by_an_object(given: SimpleNamespace) -> None:
    with capture_attention(given.model, [0]):
        module: Any = decoder_layers(given.model)[0]
        state = module.__dict__["_mia_attention_probe"]
        _observe(state, _Given(module, *[torch.zeros(1, 4, 2, 8)] * 3, mask=object(), kwargs={}))


def elsewhere(given: SimpleNamespace) -> None:
    given.patch.setitem(FAMILIES, "llava", Family(refused="its pictures are no tokens of the prompt"))
    check_readable(given.model, [1])


def adapted(given: SimpleNamespace) -> None:
    adapter: Any = SimpleNamespace(layers=decoder_layers)
    given.patch.setitem(FAMILIES, "llava", Family(adapter=adapter))
    within(images_hidden(given.model, given.encoded, [0]))


def without_a_decoder(given: SimpleNamespace) -> None:
    given.patch.setattr(given.model, "get_decoder", lambda: None)
    within(capture_states(given.model, [1]))


def without_numbers(given: SimpleNamespace) -> None:
    given.model.lm_head.weight.data.fill_(torch.nan)
    prompt = SimpleNamespace(id="s", images=["a"], prompt="<image>what ?")
    list(respond([prompt], given.model, given.processor, open_image=lambda _: given.pictures[0]))  # type: ignore[list-item]


def without_memory(given: SimpleNamespace) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    given.patch.setattr(given.model, "generate", full)
    prompt = SimpleNamespace(id="s", images=["a"], prompt="<image>what ?")
    list(respond([prompt], given.model, given.processor, open_image=lambda _: given.pictures[0]))  # type: ignore[list-item]


def without_gradient(given: SimpleNamespace) -> None:
    given.patch.setattr("mia_attention.looking.question_view.gradient_of_words", _no_gradient)
    [note] = [note for note in asked(given, knockout=False, alone=False).notes if note.startswith("gradient")]
    raise MiaError(note)


def _no_gradient(*_: Any) -> Any:
    from mia_augment.errors import ModelError

    raise ModelError("gradient: LlamaAttention has no parameters in floating point to begin at (quantized?)")


RAISED: list[tuple[str, Callable[[SimpleNamespace], Any]]] = [
    ("picture-that-cannot-be-opened", lambda g: asked(g, [g.pictures[0], "nowhere.jpg"])),
    ("no-such-image", lambda g: asked(g, question="In Image3, what ?")),
    ("no-such-image", lambda g: knockout(g.model, g.encoded, [[30], [31]], images=[2])),
    ("pictures-and-placeholders", lambda g: asked(g, question="<image> what ?")),
    ("no-such-layer", lambda g: asked(g, layer=9)),
    ("no-such-layer", lambda g: within(capture_states(g.model, [9]))),
    ("no-such-head", lambda g: within(heads_scaled(g.model, [(1, 4)], 0.0))),
    ("no-heads-can-be-chosen", lambda g: choose_heads([], [])),
    ("training-mode", trained),
    ("nothing-was-captured", captured_nothing),
    ("nothing-was-captured", states_of_nothing),
    ("one-capture-one-sequence", ran_twice),
    ("one-capture-one-sequence", captured_twice),
    ("one-capture-one-sequence", in_another_thread),
    ("another-batch", another_batch),
    ("attention-that-cannot-be-read", masked_by_an_object),
    ("attention-that-cannot-be-read", elsewhere),
    ("attention-that-cannot-be-changed", adapted),
    ("states-that-cannot-be-read", without_a_decoder),
    ("outputs-that-are-no-numbers", without_numbers),
    ("out-of-memory", without_memory),
    ("gradient-that-was-not-measured", without_gradient),
]


def without_numerals(text: str) -> str:
    return re.sub(r"\d+", "0", text)


@pytest.mark.parametrize(("heading", "run"), RAISED, ids=[f"{i}-{name}" for i, (name, _) in enumerate(RAISED)])
def test_the_message_ends_with_its_heading_which_quotes_it(
    given: SimpleNamespace, heading: str, run: Callable[[SimpleNamespace], Any]
) -> None:
    with pytest.raises(MiaError) as raised:
        run(given)
    message = str(raised.value)
    assert message.endswith(f"see docs/errors.md#{heading}")
    quotes = [without_numerals(quote) for quote in re.findall(r"`([^`]+)`", BY_ANCHOR[heading])]
    said = without_numerals(message)
    assert any(len(quote) > 12 and all(part.strip() in said for part in quote.split("..")) for quote in quotes), message


def test_every_heading_is_tried() -> None:
    assert {heading for heading, _ in RAISED} == set(BY_ANCHOR)
