"""Waiting for descriptors that asyncio has no stream for: pipes, terminals, processes, sockets that carry others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def ready(descriptor: int, *, writing: bool = False) -> None:
    """Return when the descriptor can be read from, or written to. One at a time waits for a descriptor."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    add: Callable[..., None] = loop.add_writer if writing else loop.add_reader
    add(descriptor, event.set)
    try:
        await event.wait()
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(descriptor)
