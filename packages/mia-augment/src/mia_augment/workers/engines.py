"""Who composes the samples: this process, several on this machine, or the workers of a Ray cluster."""

from __future__ import annotations

from typing import Literal

from mia_augment.workers.pool import InProcess, WorkerPool, Workers
from mia_augment.workers.worker import Job

Engine = Literal["processes", "ray"]


def started(engine: Engine, job: Job, workers: int | None, lock: int | None) -> Workers:
    """The workers, as a context that ends them.

    Args:
        lock: a file descriptor that processes of this machine hold open as long as they live.

    Raises:
        ConfigError: Ray is not installed.
    """
    if engine == "ray":
        from mia_augment.workers.ray_pool import RayPool

        return RayPool(job, workers)
    return WorkerPool(job, workers, lock) if workers is not None and workers > 1 else InProcess(job)
