"""The end of work that goes on beside a block."""

from __future__ import annotations

import asyncio
from typing import Any

from domzero.finish import finish


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel the task, and return when it is over. What it raised is dropped: whoever wanted to know has awaited it."""
    task.cancel()
    await finish(_over(task))


async def _over(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not report it as forgotten
