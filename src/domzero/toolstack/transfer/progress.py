"""How far a transfer is, told to its task now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from domzero.engine.clock import Clock

INTERVAL: Final = 0.5
"""Seconds between two changes of a task's progress: each is an event to everybody who watches tasks."""


class Progress:
    """Bytes done of bytes expected, told as a fraction of at most 0.99: what is whole is for the task's end to say."""

    def __init__(self, tell: Callable[[float], None], clock: Clock, expected: int) -> None:
        self._tell = tell
        self._clock = clock
        self._expected = max(1, expected)
        self._told = clock.monotonic()
        self.done = 0

    def reach(self, done: int) -> None:
        """So many bytes are done; fewer than before count as so many as before."""
        self.done = max(self.done, done)
        now = self._clock.monotonic()
        if now - self._told >= INTERVAL:
            self._told = now
            self._tell(min(0.99, self.done / self._expected))
