"""Sequences that ask for a colour, for tests of the diagnosis."""

from __future__ import annotations

from mia_augment.records import Region, Sample, Source


def sample(number: int, parts: int, answer: str = "red") -> Sample:
    return Sample(
        id=f"s{number}",
        format="sequence",
        images=[f"{i}.png" for i in range(parts)],
        prompt="<image>" * parts + "What colour?",
        answer=answer,
        regions=[Region(image=i, label=f"Image{i + 1}") for i in range(parts)],
        target=0,
        source=Source(
            ids=["x"] * parts, paths=["p"] * parts, question="What colour?", answers=[answer] + ["blue"] * (parts - 1)
        ),
    )
