"""Several processes that share one run's batches, without talking to each other: each reads the others' journals."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from mia_augment import ModelError

PATIENCE = 3600.0
"""Seconds to wait for the other processes."""

PAUSE = 0.5
"""Seconds between two looks at what they have done."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """As `accelerate launch` and `torchrun` tell it; one process without them."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def owns(self, number: int) -> bool:
        """Whether the batch of this number is this process's."""
        return number % self.world == self.rank

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when the condition holds; at once if this is the only process.

        Raises:
            ModelError: the others took too long.
        """
        deadline = time.monotonic() + PATIENCE
        while self.world > 1 and not condition():
            if time.monotonic() > deadline:
                raise ModelError(
                    f"rank {self.rank} of {self.world} waited {PATIENCE:.0f} s for {what}; did another process die?"
                )
            time.sleep(PAUSE)
