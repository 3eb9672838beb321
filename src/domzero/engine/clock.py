"""What the engine asks of a clock, and the API's way to write a moment down.

Any object with these three methods will do; real and hand-moved ones live in `domzero.host.clock`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Protocol


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


def moment(when: datetime) -> str:
    """An aware moment as the API's datetime, `YYYYMMDDTHH:MM:SSZ`."""
    return when.astimezone(UTC).strftime("%Y%m%dT%H:%M:%SZ")


async def settled(clock: Clock, future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait until the future is done, at most that long by the clock; whether it is. The future is left as it is."""
    if future.done() or seconds <= 0:
        return future.done()
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((future, timer), return_when=asyncio.FIRST_COMPLETED)
        return future.done()
    finally:
        timer.cancel()
