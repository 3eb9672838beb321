"""Deeds that are due at certain moments, kept by one task however many there are."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from domzero.host.clock import Clock


class Alarm:
    """Calls `ring(key, generation)` at each moment that was `set`, in order of moments, then of setting.

    A moment cannot be taken back: the callee compares the generation. Cheap for tens of thousands of moments.
    """

    def __init__(self, clock: Clock, ring: Callable[[int, int], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._moments: list[tuple[float, int, int, int]] = []
        self._order = 0
        self._sooner = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ring; needs the running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="simulator's alarm")

    async def stop(self) -> None:
        """Ring no more; what was set is forgotten."""
        task, self._task = self._task, None
        self._moments.clear()
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def set(self, moment: float, key: int, generation: int) -> None:
        """Ring at `moment` on the monotonic clock, or as soon as possible when that has passed."""
        self._order += 1
        entry = (moment, self._order, key, generation)
        heapq.heappush(self._moments, entry)
        if self._moments[0] is entry:
            self._sooner.set()

    async def _run(self) -> None:
        while True:
            self._sooner.clear()
            while self._moments and self._moments[0][0] <= self._clock.monotonic():
                _, _, key, generation = heapq.heappop(self._moments)
                self._ring(key, generation)
            await self._wait(self._moments[0][0] - self._clock.monotonic() if self._moments else None)

    async def _wait(self, seconds: float | None) -> None:
        if seconds is None:
            await self._sooner.wait()
            return
        waiters = {asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._sooner.wait())}
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
