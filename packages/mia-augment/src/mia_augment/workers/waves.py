"""Which samples to make, in waves of tasks: what fails in one wave is replaced in the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from mia_augment.compose.samples import Task
from mia_augment.errors import DataError
from mia_augment.formats import Bucket, FormatName
from mia_augment.indexing.index import Index
from mia_augment.seeds import seed_from
from mia_augment.settings import AugmentSettings


def waves(
    index: Index, settings: AugmentSettings, seed: int, made: Mapping[Bucket, int]
) -> Iterator[tuple[int, Iterator[Task]]]:
    """Yield (number of tasks, tasks) for each wave; the caller counts in `made` what comes of them before it asks for the next.

    Without `per_bucket` there is one wave, every row in its order. With it, every bucket walks the rows in a random order of
    its own, as far as it takes to make that many samples.
    """
    if settings.per_bucket is None:
        copies = settings.samples_per_row
        yield len(index.rows) * copies, (Task(row, copy=copy) for row in index.rows for copy in range(copies))
        return
    rows = len(index.rows)
    order = sorted(index.rows, key=lambda row: seed_from(seed, index.row_hash[row].to_bytes(8, "little")))
    buckets = list(settings.shares())
    first = {bucket: i * rows // len(buckets) for i, bucket in enumerate(buckets)}
    walked = dict.fromkeys(buckets, 0)
    while True:
        missing = {bucket: settings.per_bucket - made.get(bucket, 0) for bucket in buckets}
        wave = {bucket: range(walked[bucket], min(rows, walked[bucket] + missing[bucket])) for bucket in buckets}
        total = sum(map(len, wave.values()))
        if not total:
            return
        yield total, (Task(order[(first[b] + step) % rows], bucket=b) for b in buckets for step in wave[b])
        for bucket in buckets:
            walked[bucket] += len(wave[bucket])


def check_served(index: Index, settings: AugmentSettings) -> None:
    """Look whether the rows can serve every wanted format at all, before the first sample is made.

    Raises:
        DataError: a format asks for rows that share a question, and not one row does.
    """
    least: dict[FormatName, int] = {}
    for name, parts in settings.shares():
        if sharing := settings.sharing(name, parts):
            least[name] = min(sharing, least.get(name, sharing))
    served = {pictures: index.rows_sharing(pictures + 1) for pictures in set(least.values())}
    lacking = [name for name, pictures in least.items() if not served[pictures]]
    if lacking and len(index.rows):  # where there are none, their reasons are told
        told = ", ".join(f"{name} ({served[least[name]]} of {len(index.rows)} rows share a question with rows of "
                         f"{least[name]} other picture{'s' * (least[name] > 1)})" for name in lacking)  # fmt: skip
        raise DataError(
            f"these formats cannot be made of the data: {told}; bring rows that ask the same of several pictures "
            "(or describe them), or set `augment.formats`, `augment.companions` or the recipe otherwise"
        )


def chunks(tasks: Iterator[Task], size: int) -> Iterator[list[Task]]:
    """Lists of `size` tasks, the last one shorter."""
    while chunk := list(islice(tasks, size)):
        yield chunk
