"""The workers as actors of a Ray cluster (needs the extra ``mia-augment[ray]``).

Ray Data gives chunks to the actors, starts new ones for those that die, and asks for a chunk again that was lost. What is made
lies in the folder that all machines share, chunk by chunk, so a later call asks only for what is missing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Self

from mia_augment.compose.samples import Task
from mia_augment.errors import ConfigError, MiaError
from mia_augment.workers.pool import Chunk
from mia_augment.workers.worker import Job, Worker, chunk_counts

CHUNKS_AT_ONCE = 20_000
"""Chunks that are handed to Ray at a time: millions of rows, a few megabytes."""
BLOCKS_PER_WORKER = 8
"""Ray gives out blocks of chunks; so many for each worker keep all busy to the end."""
PATIENCE_FOR_FILES = 20.0
"""Seconds within which a file that another machine has written is to be seen here."""


class RayPool:
    """Actors of the cluster that `ray.init` finds (`RAY_ADDRESS`, or the one on this machine), else of this machine."""

    def __init__(self, job: Job, workers: int | None) -> None:
        """`workers`: number of actors; None: one for each CPU of the cluster."""
        self._job = job.model_copy(update={"out": job.out.resolve(), "image_root": job.image_root.resolve()})
        self._wanted, self._mine = workers, False

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise ConfigError("engine ray: Ray is not installed: pip install 'mia-augment[ray]'") from error
        if not ray.is_initialized():
            try:
                ray.init(log_to_driver=False, logging_level="warning", include_dashboard=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(f"engine ray: no cluster could be reached or started: {error}") from error
            self._mine = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            import ray

            ray.shutdown()

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Counter[str]]:
        """Make all chunks that are not there yet; yields what each holds.

        Raises:
            MiaError: from a worker, or a machine does not see the folders.
        """
        waiting = iter(chunks)
        while window := list(islice(waiting, CHUNKS_AT_ONCE)):
            missing = []
            for name, tasks in window:
                path = self._job.scratch / "chunks" / f"{name}.jsonl"
                counts = chunk_counts(path) if path.is_file() else None
                if counts is None:
                    missing.append({"name": name, "tasks": json.dumps([[t.row, t.bucket, t.copy] for t in tasks])})
                else:
                    yield counts
            if missing:
                yield from self._made(missing)

    def _made(self, missing: list[dict[str, str]]) -> Iterator[Counter[str]]:
        import ray
        import ray.data

        workers = min(self._wanted or int(ray.cluster_resources().get("CPU", 1)), len(missing))
        data = ray.data.from_items(missing, override_num_blocks=min(len(missing), BLOCKS_PER_WORKER * workers))
        made = data.map(_Composer, fn_constructor_args=(self._job.model_dump_json(),), concurrency=workers)
        for row in made.iter_rows():
            if row["error"]:
                raise MiaError(row["error"])
            self._see(row["name"], row["machine"])
            yield Counter(json.loads(row["counts"]))

    def _see(self, name: str, machine: str) -> None:
        """Raise MiaError if a chunk that was made elsewhere does not come to be seen here."""
        path, deadline = self._job.scratch / "chunks" / f"{name}.jsonl", time.monotonic() + PATIENCE_FOR_FILES
        while not path.is_file():
            if time.monotonic() > deadline:
                raise MiaError(
                    f"{path}: {machine} has written it, but it is not seen here: {self._job.out} is another folder there; "
                    "choose one that all machines share (NFS, Lustre, ..)"
                )
            time.sleep(0.2)


class _Composer:
    """What an actor does: chunk after chunk; what is wrong it answers, so that Ray does not ask for it again and again."""

    def __init__(self, job: str) -> None:
        self._job = Job.model_validate_json(job)
        self._worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        answer = {"name": row["name"], "counts": "", "error": "", "machine": socket.gethostname()}
        try:
            answer["counts"] = json.dumps(self._made(row["name"], json.loads(row["tasks"])))
        except (MiaError, OSError) as error:
            answer["error"] = f"{error}"
        return answer

    def _made(self, name: str, tasks: list[Any]) -> dict[str, int]:
        if self._worker is None:
            self._look()
            self._worker = Worker(self._job)
        found = [Task(row, (bucket[0], bucket[1]) if bucket else None, copy) for row, bucket, copy in tasks]
        return dict(self._worker.run(name, found))

    def _look(self) -> None:
        """Raise MiaError unless this machine sees the folders that the others see."""
        for folder in (self._job.scratch / "index", self._job.image_root):
            if not folder.is_dir():
                raise MiaError(
                    f"{folder}: not seen on {socket.gethostname()}: with Ray all machines need the pictures and the output "
                    "folder under the same path, on a file system that they share (NFS, Lustre, ..)"
                )
