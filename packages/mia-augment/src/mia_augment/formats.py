"""The formats of samples, one row each. Whatever depends on a format reads its row.

To add a format: a row here, a function that composes its picture, its words in `mia_augment.compose.prompts`, its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from pydantic import BaseModel, create_model

from mia_augment.compose.canvas import Composed, compose_grid, compose_pic_in_pic
from mia_augment.compose.prompts import Words, inset_labels, numbered_labels, ordinal_labels, sequence_header, single_header
from mia_augment.compose.shared_questions import (
    SharedQuestion,
    Wrong,
    ask_captions,
    ask_comparison,
    ask_search,
    others_answers,
    wrong_captions,
    wrong_comparisons,
    wrong_searches,
)
from mia_augment.compose.strip import WIDEST, compose_strip

Compose = Callable[[Sequence[Image.Image], Any, Image.Resampling], Composed]
"""Composes the pictures of the parts, given the format's own settings and the filter for resizing."""


@dataclass(frozen=True, eq=False)
class Format:
    """What is particular to one format."""

    name: str
    title: str
    """As people read it, for one."""
    plural: str
    labels: Callable[[int], Sequence[str]]
    """Number of parts -> how the prompt calls each."""
    header: Callable[[int], str]
    """Number of parts -> what stands before the question."""
    words: Words | None
    """Which templates name the target; None: the question stays as it is."""
    parts: int | None = None
    """The only number of parts; None: the numbers that its settings name."""
    target: Literal["anywhere", "last"] = "anywhere"
    """At which place the target lies."""
    compose: Compose | None = None
    """None: every part is an image file of its own. Otherwise the pixels come to lie elsewhere, so rows with coordinates cannot
    be used."""
    part_bounds: Callable[[Any], tuple[int, int]] | None = None
    """The format's settings -> (width, height) px into which each part is shrunk; None: that depends on the other parts."""
    shared: SharedQuestion | None = None
    """How a question about several of the pictures is made of one that their rows share; None: the question is about one."""
    wrong: Wrong = others_answers
    """Wrong answers that can be built of what the pictures' own rows say."""
    share: float = 0.0
    """Share of the samples by default."""
    thresholds: Mapping[int, float] = field(default_factory=dict)
    """Number of parts -> largest share of attention on the target with which an answer looks elsewhere; empty: that is not
    asked, since there is one picture only, or the question is about several."""
    inclusive: bool = False
    """Whether an answer at the threshold itself looks elsewhere."""
    sigma: float = 0.0
    """Standard deviation of the noise on the model's view while scoring, in grey levels of 255; 0: none."""
    disturbed: Literal["target", "picture"] = "target"
    """Whether the noise lies on the target's box or on the whole picture."""
    paper: bool = False
    """Whether the paper has it; its thresholds and its noise are the paper's then."""

    @property
    def several(self) -> bool:
        """Whether its prompts speak of more than one picture."""
        return self.parts != 1

    @property
    def asks_of_one(self) -> bool:
        """Whether its prompts ask about one picture among several: only then can an answer speak of the wrong one."""
        return self.several and self.shared is None

    def title_of(self, parts: int) -> str:
        """Title with the number of parts, which is left out where there is only one: ``sequence 3``."""
        return self.title if self.parts else f"{self.title} {parts}"


def _grid(pictures: Sequence[Image.Image], settings: Any, resample: Image.Resampling) -> Composed:
    labels = numbered_labels(len(pictures))
    return compose_grid(pictures, labels, rows=settings.rows, style=settings.style, resample=resample)


def _pic_in_pic(pictures: Sequence[Image.Image], settings: Any, resample: Image.Resampling) -> Composed:
    return compose_pic_in_pic(*pictures, scale=settings.scale, position=settings.position, resample=resample)


def _strip(pictures: Sequence[Image.Image], settings: Any, resample: Image.Resampling) -> Composed:
    return compose_strip(pictures, height=settings.height, gap=settings.gap, resample=resample)


_ROWS = (
    Format(
        name="sequence",
        title="sequence",
        plural="sequences",
        labels=numbered_labels,
        header=sequence_header,
        words="named",
        share=0.5,
        thresholds={2: 0.8, 3: 0.7, 4: 0.6, 5: 0.6},
        inclusive=True,
        paper=True,
    ),
    Format(
        name="grid",
        title="grid",
        plural="grids",
        labels=numbered_labels,
        header=single_header,
        words="named",
        compose=_grid,
        part_bounds=lambda settings: (settings.cell, settings.cell),
        share=0.3,
        thresholds={2: 0.7, 3: 0.6, 4: 0.5, 6: 0.4, 9: 0.3},
        sigma=225.0,
        paper=True,
    ),
    Format(
        name="pic_in_pic",
        title="pic-in-pic",
        plural="pic-in-pic",
        labels=inset_labels,
        header=single_header,
        words="pic_in_pic",
        parts=2,
        target="last",
        compose=_pic_in_pic,
        share=0.2,
        thresholds={2: 0.8},
        sigma=49.0,
        disturbed="picture",
        paper=True,
    ),
    Format(
        name="strip",
        title="strip",
        plural="strips",
        labels=ordinal_labels,
        header=single_header,
        words="strip",
        compose=_strip,
        part_bounds=lambda settings: (WIDEST * settings.height, settings.height),
        thresholds={2: 0.7, 3: 0.6, 4: 0.5, 6: 0.4},
        sigma=225.0,
    ),
    Format(
        name="comparison",
        title="comparison",
        plural="comparisons",
        labels=numbered_labels,
        header=sequence_header,
        words=None,
        shared=SharedQuestion(named=2, ask=ask_comparison),
        wrong=wrong_comparisons,
    ),
    Format(
        name="search",
        title="search",
        plural="searches",
        labels=numbered_labels,
        header=sequence_header,
        words=None,
        shared=SharedQuestion(named=None, ask=ask_search),
        wrong=wrong_searches,
    ),
    Format(
        name="captions",
        title="captions",
        plural="captions",
        labels=numbered_labels,
        header=sequence_header,
        words=None,
        shared=SharedQuestion(named=None, ask=ask_captions),
        wrong=wrong_captions,
    ),
    Format(
        name="single",
        title="single",
        plural="single",
        labels=numbered_labels,
        header=single_header,
        words=None,
        parts=1,
        target="last",
    ),
)

FORMATS: Mapping[str, Format] = {row.name: row for row in _ROWS}
"""Name -> format, in the order in which tables show them; `single` measures single-image ability and stands last."""

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]
"""Name of a format, as records hold it; pydantic refuses others."""

SEVERAL: tuple[FormatName, ...] = tuple(row.name for row in _ROWS if row.several)
"""Formats of several images."""
SINGLE: FormatName = next(row.name for row in _ROWS if not row.several)
"""The format of one picture alone, as the data have it."""
IMAGE_FILES: FormatName = next(row.name for row in _ROWS if row.several and row.compose is None)
"""The format whose parts are image files of their own: what any prompt with several images is."""

Bucket = tuple[FormatName, int]
"""(format, number of parts)"""


def per_format(base: type[BaseModel], fields: Mapping[str, tuple[Any, Any]]) -> Any:
    """A pydantic model with a field for each format, given its type and its `Field`; a class to be derived from."""
    definitions: dict[str, Any] = dict(fields)
    return create_model(f"{base.__name__}PerFormat", __base__=base, **definitions)
