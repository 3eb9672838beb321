"""Time as an argument: the system's clock, and one that a test (or a user of the simulator) moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

SETTLE_TURNS = 25
"""Turns of the event loop that `ManualClock` gives to woken tasks; each `await` of something ready takes one."""


CENTURY = 100 * 365.25 * 86_400
"""Seconds; dates further off cannot be told apart from mistakes."""


class Clock(Protocol):
    """What code that waits or measures time is given."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def now(self) -> datetime:
        """Wall time, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when that much time has passed; at once for zero or less."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class AdjustableClock(SystemClock):
    """The machine's clock, which can be set forward: whoever sleeps meanwhile wakes that much sooner.

    For the simulator as a server, whose clients cannot wait for what takes a day.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._moved = asyncio.Event()

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self._ahead)

    async def sleep(self, seconds: float) -> None:
        due = self.monotonic() + seconds
        while (left := due - self.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                # The rest of the sleep went by undisturbed.
                continue

    def advance(self, seconds: float) -> None:
        """Set the clock forward, in all by a century at most. Raises `ValueError` for a time that is past or beyond."""
        if math.isnan(seconds) or seconds < 0:
            raise ValueError("time does not go back")
        if self._ahead + seconds > CENTURY:
            raise ValueError("time does not go further than a century")
        self._ahead += seconds
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


class ManualClock:
    """A clock that stands still until it is moved.

    Sleepers wake in the order of their due times, equal ones in the order in which they went to sleep. After each
    wake-up the event loop gets `SETTLE_TURNS` turns, so a task that sleeps again is due again within the same
    `advance`. Work in threads or child processes is not waited for.
    """

    def __init__(self, start: datetime = datetime(2011, 9, 30, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._order = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self._elapsed

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._order, future))
        await future

    def next_due(self) -> float | None:
        """Seconds until the next sleeper wakes; None when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] - self._elapsed if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, waking every sleeper on the way at its own moment."""
        if seconds < 0:
            raise ValueError("time does not go back")
        end = self._elapsed + seconds
        await _settle()
        while self.next_due() is not None and self._sleepers[0][0] <= end:
            await self._wake_next()
        self._elapsed = end
        await _settle()

    async def step(self) -> bool:
        """Go to the moment at which the next sleeper wakes and wake that one alone. False when nobody sleeps."""
        await _settle()
        if self.next_due() is None:
            return False
        await self._wake_next()
        return True

    async def _wake_next(self) -> None:
        due, _, future = heapq.heappop(self._sleepers)
        self._elapsed = max(self._elapsed, due)
        future.set_result(None)
        await _settle()


async def _settle() -> None:
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)
