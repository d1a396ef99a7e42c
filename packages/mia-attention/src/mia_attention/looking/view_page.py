"""The page of one answer: words to step through, and the heat of each over the pictures, in one file that needs nothing else.

Everything that comes from a question, an answer, a file name or a model is escaped.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from mia_attention.looking.answer_view import AnswerView
    from mia_attention.looking.word_readings import WordReading

FOLDER = Path(__file__).parent / "page"
LONGEST = 720
"""Of a picture in the page, px; photographs are shown no larger."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""One for each picture, in turn; told apart by the colour-blind, too (Okabe and Ito)."""


def view_page(view: AnswerView) -> str:
    """The page, as text."""
    parts = {
        "title": html.escape(f"{view.question} {view.answer}"[:120]),
        "css": _asset("view.css"),
        "js": _asset("view.js"),
        "model": html.escape(re.split(r"[/\\\\]", view.model)[-1] if Path(view.model).is_absolute() else view.model),
        "question": html.escape(view.question),
        "said": "The given answer" if view.given else "The model's answer",
        "words": "".join(_word(index, text, view) for index, text in enumerate(view.tokens)),
        "told": html.escape(_told(view)),
        "ways": "".join(
            f'<button type="button" data-way="{name}" aria-pressed="false">{title}</button>' for name, title, _ in _ways(view)
        ),
        "pictures": "".join(_figure(index, view) for index in range(len(view.pictures))),
        "each": _each_picture(view),
        "table": _table(view),
        "notes": "".join(f'<p class="quiet">{html.escape(note)}</p>' for note in view.notes),
        "data": json.dumps(_data(view)).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], _asset("view.html"))


def brightness(reading: WordReading) -> list[np.ndarray[Any, Any]] | None:
    """Per picture, 0..255: the cells' density for the whole answer, and then for each token, (1 + tokens, rows, columns).

    Density is attention per area of a picture, of all pictures' equal areas: how many pixels a picture has changes nothing.
    Each of the 1 + tokens has its own scale, one for all pictures.
    """
    if reading.maps is None:
        return None
    each = [np.concatenate([maps.sum(0, keepdims=True), maps]) * maps[0].size for maps in reading.maps]
    top = np.max([density.max(axis=(1, 2)) for density in each], axis=0)
    top[top <= 0] = 1.0
    return [np.round(255 * density / top[:, None, None]).astype(np.uint8) for density in each]


def _ways(view: AnswerView) -> list[tuple[str, str, WordReading]]:
    """Name, title and reading of what was measured, what is shown first in front."""
    attention = ("attention", "attention", view.attention)
    return [attention] if view.gradient is None else [("gradient", "gradient × attention", view.gradient), attention]


def _data(view: AnswerView) -> dict[str, Any]:
    maps = view.attention.maps
    return {
        "first": _ways(view)[0][0],
        "ways": {name: _way(reading) for name, _, reading in _ways(view)},
        "pictures": [
            {
                "label": label,
                "colour": _colour(index),
                "rows": 0 if maps is None else maps[index].shape[1],
                "columns": 0 if maps is None else maps[index].shape[2],
            }
            for index, label in enumerate(view.labels)
        ],
        "chance": _chance(view.logp),
        "chances": [_chance(logp) for logp in view.logps],
    }


def _way(reading: WordReading) -> dict[str, Any]:
    cells = brightness(reading)
    shares = [reading.share, *reading.shares]
    return {
        "reads": reading.reads,
        "shares": [None if row is None else [round(share, 4) for share in row] for row in shares],
        "maps": None if cells is None else [base64.b64encode(one.tobytes()).decode("ascii") for one in cells],
    }


def _word(index: int, text: str, view: AnswerView) -> str:
    """A word as a button; line breaks stay between the buttons."""
    if not text and index == len(view.tokens) - 1:
        return '<button type="button" class="end" data-end="1" title="end of the answer">(end)</button>'
    shown = text if text.strip() else "␣" if text else "·"
    lead = len(shown) - len(shown.lstrip()) if index or shown.strip() != shown else 0
    title = html.escape(f"token {index + 1}", quote=True)
    before = "" if index == 0 else shown[:lead]
    return f'{html.escape(before)}<button type="button" title="{title}">{html.escape(shown[lead:])}</button>'


def _figure(index: int, view: AnswerView) -> str:
    share = view.share
    asked = '<span class="asked">asked about</span>' if view.about == index and len(view.labels) > 1 else ""
    name = view.names[index]
    label = html.escape(view.labels[index] + ("" if name == view.labels[index] else f" · {name}"))
    canvas = "" if view.attention.maps is None else '<canvas aria-hidden="true"></canvas>'
    part = "" if share is None else _percent(share[index])
    return (
        f'<figure style="--own:{_colour(index)}"><figcaption><span>{label} {asked}</span><b>{part}</b></figcaption>'
        f'<div class="bar"><i style="width:{100 * (share[index] if share else 0):.0f}%"></i></div>'
        f'<div class="frame"><img src="{_small(view.pictures[index])}" alt="{label}">{canvas}</div></figure>'
    )


def _each_picture(view: AnswerView) -> str:
    """A table of what each picture does by itself, as far as it was measured."""
    columns: list[tuple[str, list[str], str]] = []
    if view.alone is not None:
        found = view.alone_share or [math.nan] * len(view.alone)
        columns.append(("log-prob of this answer under it alone", [_nats(logp) for logp in view.alone], _nats(view.logp)))
        columns.append(("share", [_percent(share) for share in found], ""))
    if view.knockout is not None:
        columns.append(("lost without it", [_nats(loss) for loss in view.knockout], ""))
    if not columns:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Picture", *(name for name, _, _ in columns)))
    rows = [(html.escape(label), [cells[index] for _, cells, _ in columns]) for index, label in enumerate(view.labels)]
    if view.alone is not None:
        rows.append(("all together", [together for _, _, together in columns]))
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for name, cells in rows
    )
    return f'<div class="wide"><table class="alone"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _table(view: AnswerView) -> str:
    ways = _ways(view)
    head = "".join(f'<th scope="col">{html.escape(label)}, {title}</th>' for _, title, _ in ways for label in view.labels)
    rows = []
    for index, text in enumerate(view.tokens):
        shares = [reading.shares[index] or [math.nan] * len(view.labels) for _, _, reading in ways]
        cells = "".join(f"<td>{_percent(share)}</td>" if share == share else "<td>none</td>" for row in shares for share in row)
        word = html.escape(text.strip() or ("(end)" if index == len(view.tokens) - 1 else "(blank)"))
        rows.append(f'<tr><th scope="row">{word}</th><td>{_chance(view.logps[index])}</td>{cells}</tr>')
    return (
        f'<table><thead><tr><th scope="col">Word</th><th scope="col">probability</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _told(view: AnswerView) -> str:
    share = view.share
    if share is None:
        return "Nothing was looked at."
    return "The whole answer: " + ", ".join(f"{label} {_percent(part)}" for label, part in zip(view.labels, share, strict=True))


def _chance(logp: float) -> str:
    chance = math.exp(logp)
    return f"{chance:.2f}" if chance >= 0.01 else f"{chance:.0e}"


def _percent(share: float) -> str:
    return "none" if math.isnan(share) else f"{100 * share:.0f}\u00a0%"


def _nats(logp: float) -> str:
    return f"{logp:.2f} nats".replace("-0.00", "0.00")


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _small(picture: Image.Image) -> str:
    """A data URI with at most `LONGEST` px a side; small pictures are enlarged by the page, not here."""
    small = picture.copy()
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=85, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
