"""Another picture for the target's place, under which the chosen answer is to be less likely."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple

from mia_augment import ScoredSample, normalize_answer

from mia_select.draws import stable_key
from mia_select.settings import SelectSettings

REMEMBERED = 64
"""Targets of earlier samples among which one is chosen."""


class OtherPicture(NamedTuple):
    """The pictures of a prompt with another one in the target's place, or why there is none."""

    images: list[str] | None
    missing: str | None = None


class OtherPictures:
    """Finds them sample by sample; call `of` once for each, in order."""

    def __init__(self, settings: SelectSettings) -> None:
        self._settings = settings
        self._earlier: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        """Picture and answer of earlier targets."""
        self.missing: Counter[str] = Counter()
        """Why samples have none."""

    def of(self, sample: ScoredSample, answer: str) -> OtherPicture:
        """The sample's pictures with a companion's, or an earlier sample's target, in the target's place.

        A picture of which the same answer is known to be right or to be given is none. Parts of composed pictures cannot be
        exchanged.

        Args:
            answer: the chosen one.
        """
        region = sample.regions[sample.target]
        if region.box is not None:
            return self._none("the target is a part of a composed picture")
        own, said = sample.images[region.image], normalize_answer(answer)
        if self._settings.other_picture == "sample":
            found = [name for name, other in self._earlier if name not in sample.images and other != said]
            self._earlier.append((own, said))
            why = "no earlier sample has another picture and another answer"
        else:
            found = list(_companions(sample, own, said))
            why = "no companion picture with another answer"
        if not found:
            return self._none(why)
        other = min(found, key=lambda name: stable_key(self._settings.seed, sample.id, name))
        return OtherPicture([other if index == region.image else name for index, name in enumerate(sample.images)])

    def _none(self, why: str) -> OtherPicture:
        self.missing[why] += 1
        return OtherPicture(None, why)


def _companions(sample: ScoredSample, own: str, said: str) -> Iterator[str]:
    """Whole pictures of the prompt besides the target's, of which nothing says that they have the same answer."""
    for index, region in enumerate(sample.regions):
        name = sample.images[region.image]
        known = [answers[index] for answers in (sample.source.answers, sample.confusions or []) if index < len(answers)]
        same = any(answer is not None and normalize_answer(answer) == said for answer in known)
        if index != sample.target and region.box is None and name != own and not same:
            yield name
