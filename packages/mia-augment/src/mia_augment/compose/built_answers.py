"""Wrong answers built of a sample's own parts: none is asked of a model."""

from __future__ import annotations

import random

from mia_augment.compose.shared_questions import Built, SharedParts
from mia_augment.formats import FORMATS
from mia_augment.records import Sample
from mia_augment.seeds import seed_from
from mia_augment.text import normalize_answer


def built_answers(sample: Sample) -> list[Built]:
    """All wrong answers that the sample's format can build, each text once, and none that says what its true answer says.

    What is drawn meanwhile depends on the sample's id alone.
    """
    labels = [region.label for region in sample.regions]
    answers = [*sample.source.answers, *[None] * (len(labels) - len(sample.source.answers))]
    parts = SharedParts(sample.source.question, labels, answers, sample.named or [sample.target], sample.target)
    known = {normalize_answer(sample.answer)}
    found = []
    for built in FORMATS[sample.format].wrong(parts, random.Random(seed_from("built", sample.id))):
        normal = normalize_answer(built.text)
        if normal and normal not in known:
            known.add(normal)
            found.append(built)
    return found
