from __future__ import annotations

from collections.abc import Callable

import pytest
from mia_augment.records import Attention, Region, ScoredSample, Source

MakeScored = Callable[..., ScoredSample]


@pytest.fixture
def make_scored() -> MakeScored:
    """A scored sample that passes every default rule, unless told otherwise."""

    def make(
        name: str = "a",
        *,
        format: str = "sequence",
        parts: int = 2,
        ratio: float | None = 0.3,
        answer: str = "The color is red.",
        response: str = "The color is blue.",
        perplexity: float | None = 1.5,
        target: int = 0,
        confusions: list[str | None] | None = None,
        answers: list[str | None] | None = None,
        path: str | None = None,
        own: str | None = None,
        own_ids: list[int] | None = None,
        layer: int | str = 16,
    ) -> ScoredSample:
        several = format == "sequence"
        count = parts if several else 1
        paths = [f"coco/{name}{i}.jpg" for i in range(parts)]
        if path is not None:
            paths[target] = path
        images = paths if several else [f"images/{name}.png"]
        prompt = "".join(f"Image{i + 1}:<image>\n" for i in range(count)) if several else "<image>\n"
        return ScoredSample.model_validate(
            {
                "id": name,
                "format": format,
                "images": images,
                "prompt": f"{prompt}In Image{target + 1}, what color is it?",
                "answer": answer,
                "regions": [
                    Region(
                        image=i if several else 0, box=None if several else (10 * i, 0, 10 * i + 10, 10), label=f"Image{i + 1}"
                    ).model_dump()
                    for i in range(parts)
                ],
                "target": target,
                "source": Source(
                    ids=[f"{name}{i}" for i in range(parts)], paths=paths, question="What color is it?", answers=answers or []
                ).model_dump(),
                "response": response,
                "response_tokens": 6,
                "mean_logp": -0.4,
                "perplexity": perplexity,
                "attention": Attention(
                    layer=layer,
                    rows="generated",
                    region_mass=[0.1] * parts,
                    image_mass=[0.1] * count,
                    ratio=ratio,
                    reason=None if ratio is not None else "no generated row",
                ).model_dump(),
                "confusions": confusions,
                "own_answer": own,
                "own_answer_ids": own_ids,
            }
        )

    return make
