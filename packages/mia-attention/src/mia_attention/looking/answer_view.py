"""One answer as a person looks at it: in Python, in a notebook, in a file."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_augment.statistics import shares
from PIL import Image

from mia_attention.looking.view_page import view_page
from mia_attention.looking.word_readings import WordReading

HEIGHT = 760
"""Of the view in a notebook, px."""


@dataclass(frozen=True)
class AnswerView:
    """An answer, and where each of its words came from.

    Attributes:
        question, prompt: as asked, and with ``<image>`` where each picture stands.
        answer: the text that was said.
        tokens: the text of each token of the answer, blanks included; the token that ends the turn is ``""``.
        token_ids, logps: their ids, and each one's log-prob given the pictures and what stands before it, in nats.
        pictures, labels, names: RGB; what the prompt calls each; the names of their files.
        attention: where each token looked, in the layers that were read.
        gradient: attention of all layers weighted by what it changed of the answer; None: not measured, `notes` say why.
        alone: log-prob of the whole answer under each picture alone with the bare question, in nats; None as for `gradient`.
        knockout: what the answer's log-prob loses where each picture's tokens are invisible, in nats; above 0: it needs them.
        about: index of the picture that the question names, None: none, or several.
        given: the answer was given, not generated.
        model: its name.
        notes: what could not be measured, or only in part, and why.
    """

    question: str
    prompt: str
    answer: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    logps: tuple[float, ...]
    pictures: list[Image.Image]
    labels: list[str]
    names: list[str]
    attention: WordReading
    gradient: WordReading | None
    alone: list[float] | None
    knockout: list[float] | None
    about: int | None
    given: bool
    model: str
    notes: tuple[str, ...]

    @property
    def share(self) -> list[float] | None:
        """Each picture's share of what the answer came from: by gradient x attention where that was measured, else by
        attention. They add up to 1; None: nothing was looked at."""
        return (self.gradient or self.attention).share

    @property
    def alone_share(self) -> list[float] | None:
        """Each picture's share of the answer's likelihood under each picture alone: exp(l_k) / sum_i exp(l_i)."""
        return None if self.alone is None else shares(self.alone)

    @property
    def logp(self) -> float:
        """Log-prob of the whole answer given all pictures, in nats."""
        return math.fsum(self.logps)

    def save(self, path: str | Path) -> Path:
        """Write the view as one HTML file that needs nothing else; returns its path."""
        path = Path(path)
        path.write_text(view_page(self), encoding="utf-8")
        return path

    def summary(self) -> dict[str, Any]:
        """What was found, but for pictures and maps, as plain values for JSON."""
        ways = {"attention": self.attention, "gradient": self.gradient}
        return {
            "question": self.question,
            "answer": self.answer,
            "pictures": self.names,
            "share": self.share,
            **{name: None if one is None else {"share": one.share, "each": one.shares} for name, one in ways.items()},
            "tokens": list(self.tokens),
            "logps": list(self.logps),
            "alone": self.alone,
            "alone_share": self.alone_share,
            "knockout": self.knockout,
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        page = html.escape(view_page(self), quote=True)
        style = f"width:100%;height:{HEIGHT}px;border:0"
        return f'<iframe srcdoc="{page}" title="Where the answer came from" style="{style}"></iframe>'

    def __str__(self) -> str:
        """The answer and a line for each picture."""
        columns = {
            "attention": self.attention.share,
            "gradient": None if self.gradient is None else self.gradient.share,
            "alone": self.alone_share,
            "knockout": self.knockout,
        }
        measured = {name: values for name, values in columns.items() if values is not None}
        width = max(len(label) for label in self.labels)
        lines = [f"{self.question} -> {self.answer or '(nothing)'}", " " * width + "".join(f"{name:>11}" for name in measured)]
        for index, label in enumerate(self.labels):
            lines.append(
                f"{label:{width}}" + "".join(f"{round(values[index], 2) + 0.0:>11.2f}" for values in measured.values())
            )
        return "\n".join(lines + [f"({note})" for note in self.notes])

    __repr__ = __str__
