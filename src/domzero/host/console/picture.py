"""What a screen shows at this moment."""

from __future__ import annotations

import asyncio
from typing import Protocol

from domzero.wire.rfb_picture import Picture, PictureReader


class Line(Protocol):
    """A connection to an RFB server."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...


SECONDS = 30.0
"""For which a screen may make one wait."""


async def take(line: Line, seconds: float = SECONDS) -> Picture:
    """Ask for the whole screen. Raises `OSError`, `TimeoutError`, and `RfbError` for a server that speaks otherwise."""
    reader = PictureReader()
    async with asyncio.timeout(seconds):
        while reader.picture is None:
            data = await line.read()
            if not data:
                raise ConnectionResetError("the screen's server hung up")
            reader.receive(data)
            if output := reader.output():
                await line.write(output)
    return reader.picture
