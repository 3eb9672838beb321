"""Carries bytes between a viewer and a console, each way at the pace of the slower side, until one of them ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Protocol

from domzero.finish import until_one_ends


class End(Enum):
    """Why a viewing is over."""

    VIEWER = "the viewer left"
    CONSOLE = "the console ended"
    REVOKED = "the viewer may not look any more"
    IDLE = "nothing happened for too long"
    STALLED = "one side took nothing for too long"


class Pipe(Protocol):
    """One side; see `front.viewers` and `host.console.lines`."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...


async def relay(viewer: Pipe, line: Pipe, revoked: asyncio.Event, *, idle: float, stall: float) -> End:
    """Carry until the end. `idle` is in seconds without a byte in either direction, `stall` without one being taken.

    At most one piece is held for each direction. Nothing is closed here.
    """
    now = asyncio.get_running_loop().time
    latest = now()

    def touched() -> None:
        nonlocal latest
        latest = now()

    async def idleness() -> End:
        left = idle
        while left > 0:
            await asyncio.sleep(left)
            left = latest + idle - now()
        return End.IDLE

    first = await until_one_ends(
        _carry(viewer, line, End.VIEWER, touched, stall),
        _carry(line, viewer, End.CONSOLE, touched, stall),
        _revoked(revoked.wait()),
        idleness(),
    )
    return first.result()


async def _carry(source: Pipe, target: Pipe, end: End, touched: Callable[[], None], stall: float) -> End:
    try:
        while data := await source.read():
            touched()
            async with asyncio.timeout(stall):
                await target.write(data)
    except TimeoutError:
        return End.STALLED
    except OSError:
        return end
    return end


async def _revoked(event: Awaitable[object]) -> End:
    await event
    return End.REVOKED
