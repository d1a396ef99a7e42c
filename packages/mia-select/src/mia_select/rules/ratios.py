"""The few fields of a scored sample that thresholds are set from, so that a first pass over a file costs half as much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from mia_augment import FormatName, ScoredSample
from pydantic import BaseModel, ConfigDict


class Ratio(Protocol):
    """Where the ratio stands."""

    @property
    def ratio(self) -> float | None: ...
    @property
    def layer(self) -> object: ...


class Glance(Protocol):
    """What a `ScoredSample` and a `GlanceRecord` have in common."""

    @property
    def format(self) -> FormatName: ...
    @property
    def answer(self) -> str: ...
    @property
    def own_answer(self) -> str | None: ...
    @property
    def response(self) -> str: ...
    @property
    def regions(self) -> Sequence[object]: ...
    @property
    def attention(self) -> Ratio: ...


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RatioRecord(_Part):
    ratio: float | None = None
    layer: object = None


class GlanceRecord(_Part):
    """A scored sample as it is read for a glance: all other fields are passed over."""

    format: FormatName
    answer: str
    own_answer: str | None = None
    response: str
    regions: list[_Part]
    attention: RatioRecord


@runtime_checkable
class HasGlances(Protocol):
    """Samples that can be looked through faster than read."""

    def glances(self) -> Iterator[Glance]: ...


def glances(scored: Iterable[ScoredSample]) -> Iterable[Glance]:
    """The fastest way to look through these samples."""
    return scored.glances() if isinstance(scored, HasGlances) else scored
