"""The work of one chunk of tasks, as a worker process does it."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict

from mia_augment.compose.samples import Maker, Task
from mia_augment.errors import MiaError
from mia_augment.formats import FORMATS, Bucket
from mia_augment.images.decode import save_picture
from mia_augment.images.sniff import PictureFolder
from mia_augment.indexing.build import reason_kind
from mia_augment.indexing.index import Index
from mia_augment.records import Sample
from mia_augment.settings import AugmentSettings
from mia_augment.storage.reading import naming

SCRATCH = ".work"
IMAGES, SAMPLES, SKIPPED = "images", "samples.jsonl", "skipped.jsonl"


class Job(BaseModel):
    """Everything a worker has to know."""

    model_config = ConfigDict(frozen=True)

    out: Path
    image_root: Path
    settings: AugmentSettings
    seed: int

    @property
    def scratch(self) -> Path:
        return self.out / SCRATCH


def chunk_size(settings: AugmentSettings, tasks: int) -> int:
    """Tasks per chunk, of so many: a second's work at most, and small enough that all workers are busy to the end."""
    composed = any(FORMATS[name].compose for name, share in settings.formats.items() if share > 0)
    return max(4, min(64 if composed else 1024, tasks // 64))


class Worker:
    """Makes chunks; holds the opened index meanwhile."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._own = uuid.uuid4().hex
        """Tells its unfinished files from those of others: processes of several machines may have one number."""
        (job.scratch / "chunks").mkdir(exist_ok=True)
        pictures = PictureFolder(job.image_root, job.settings.pictures, job.out)
        self._index = Index(job.scratch / "index")
        self._maker = Maker(self._index, pictures, job.settings, job.seed, self._write)

    def close(self) -> None:
        self._index.close()

    def run(self, name: str, tasks: Sequence[Task]) -> Counter[str]:
        """Write the file of a chunk unless it is there; returns what it holds."""
        path = self._job.scratch / "chunks" / f"{name}.jsonl"
        if path.is_file() and (counts := chunk_counts(path)) is not None:
            return counts
        lines: list[str] = []
        buckets, reasons = Counter[Bucket](), Counter[str]()
        for task in tasks:
            made = self._maker.make(task)
            if isinstance(made, Sample):
                lines.append("+" + made.model_dump_json())
                buckets[made.format, made.parts] += 1
            else:
                lines.append("-" + made.model_dump_json())
                reasons[reason_kind(made.reason)] += 1
        counts = Counter(samples=buckets.total(), skipped=reasons.total())
        counts.update({f"{name}/{parts}": count for (name, parts), count in buckets.items()})
        counts.update({f"skipped/{kind}": count for kind, count in reasons.items()})
        lines.append("=" + _Counts(counts=counts).model_dump_json())
        temporary = self._temporary("chunk")
        with naming(path):
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        temporary.replace(path)
        return counts

    def _write(self, name: str, picture: Image.Image) -> None:
        path, temporary = self._job.out / name, self._temporary("picture")
        try:
            save_picture(picture, temporary, path.suffix, self._job.settings.pictures)
            try:
                temporary.replace(path)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)
        except OSError as error:
            raise MiaError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _temporary(self, what: str) -> Path:
        return self._job.scratch / f"{what}.{self._own}.tmp"


class _Counts(BaseModel):
    counts: dict[str, int]


def chunk_counts(path: Path) -> Counter[str] | None:
    """What a finished chunk holds, from its last line; None: it is not whole."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        last = file.read().splitlines()[-1:]
    if not last or not last[0].startswith(b"="):
        return None
    return Counter(_Counts.model_validate_json(last[0][1:]).counts)
