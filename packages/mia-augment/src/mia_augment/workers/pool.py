"""Worker processes of the stage.

They are plain child processes fed through pipes: they end by themselves when the parent is killed, and unlike
`multiprocessing` they never import the caller's main module.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, Protocol, Self

from mia_augment.compose.samples import Task
from mia_augment.errors import MiaError
from mia_augment.images.time_limit import child_environment
from mia_augment.workers.worker import Job, Worker

Chunk = tuple[str, list[Task]]


class Workers(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Counter[str]]:
        """Make all chunks; yields what each holds, in any order."""


class InProcess:
    """No other process: the caller's does it."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Counter[str]]:
        with contextlib.closing(Worker(self._job)) as worker:
            for name, tasks in chunks:
                yield worker.run(name, tasks)


class WorkerPool:
    """Several processes, which start while the rows are still being read; leaving the context ends them."""

    def __init__(self, job: Job, workers: int, lock: int | None = None) -> None:
        """`lock`: a file descriptor the processes hold open as long as they live."""
        self._job, self._count, self._lock = job, workers, lock
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for _ in range(self._count):
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mia_augment.workers.pool"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=child_environment(),
                pass_fds=() if self._lock is None else (self._lock,),
            )
            self._processes.append(process)
            _send(process, self._job.model_dump_json())
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(OSError):
                if process.stdin:
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
            if process.stdout:
                process.stdout.close()

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Counter[str]]:
        waiting, lock = iter(chunks), threading.Lock()
        results: queue.SimpleQueue[Counter[str] | BaseException | None] = queue.SimpleQueue()

        def feed(process: subprocess.Popen[str]) -> None:
            try:
                while True:
                    with lock:
                        chunk = next(waiting, None)
                    if chunk is None:
                        break
                    results.put(_ask(process, chunk))
                results.put(None)
            except BaseException as error:
                results.put(error)

        for process in self._processes:
            threading.Thread(target=feed, args=(process,), daemon=True).start()
        running = len(self._processes)
        while running:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result


def _send(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is None:
        raise MiaError("a worker process has no input pipe")
    with contextlib.suppress(BrokenPipeError):  # that it has ended shows when its answer is read
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _ask(process: subprocess.Popen[str], chunk: Chunk) -> Counter[str]:
    name, tasks = chunk
    _send(process, json.dumps([name, [[t.row, t.bucket, t.copy] for t in tasks]]))
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise MiaError(
            f"a worker process ended at chunk {name} with code {process.wait()} (killed for memory?); "
            "call again to go on, with fewer workers if memory is short"
        )
    answer = json.loads(line)
    if "error" in answer:
        raise MiaError(answer["error"])
    return Counter(answer["counts"])


def serve(requests: IO[str], answers: IO[str]) -> None:
    """A worker's life: the job, then chunk after chunk until the input ends."""
    job, worker = Job.model_validate_json(requests.readline()), None
    for line in requests:
        worker = worker or Worker(job)  # the index is there when the first chunk is
        name, tasks = json.loads(line)
        try:
            counts = worker.run(
                name, [Task(row, (bucket[0], bucket[1]) if bucket else None, copy) for row, bucket, copy in tasks]
            )
            answer: dict[str, object] = {"counts": counts}
        except (MiaError, OSError) as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        serve(sys.stdin, sys.stdout)
