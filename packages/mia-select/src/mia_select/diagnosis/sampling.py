"""Which samples a diagnosis asks."""

from __future__ import annotations

from collections.abc import Iterable

from mia_augment import FORMATS, Bucket, DataError, Sample

from mia_select.draws import stable_key


def choose_samples(samples: Iterable[Sample], count: int, seed: int) -> list[Sample]:
    """`count` samples that ask about one of several images, evenly from all formats and numbers, the same for the same seed.

    Raises:
        DataError: there are none.
    """
    buckets: dict[Bucket, list[Sample]] = {}
    for sample in samples:
        if FORMATS[sample.format].asks_of_one:
            buckets.setdefault((sample.format, sample.parts), []).append(sample)
    if not buckets:
        raise DataError("expected samples that ask about one of several images, got none; see `augment.formats`")
    ordered = [sorted(bucket, key=lambda s: stable_key(seed, s.id)) for _, bucket in sorted(buckets.items())]
    longest = max(map(len, ordered))
    turns = [bucket[turn] for turn in range(longest) for bucket in ordered if turn < len(bucket)]
    return sorted(turns[:count], key=lambda s: (s.format, s.parts))
