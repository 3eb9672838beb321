"""`POST /cli`: connections of `xe` are handed to whoever carries out its commands, without an HTTP response."""

from __future__ import annotations

import asyncio
from typing import Protocol

from domzero.engine.calls import Origin
from domzero.front.routes import RawStream, Request, Routes

PATH = "/cli"


class Commands(Protocol):
    """Speaks with a client from the first byte behind the head of its request."""

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int | None, origin: Origin
    ) -> None:
        """Serve a connection; the request's body has `length` bytes."""
        ...


def add_commands(routes: Routes, commands: Commands) -> None:
    """Serve the commands at `PATH`."""

    async def serve(request: Request, stream: RawStream) -> None:
        await commands.serve(stream.reader, stream.writer, request.head.content_length, request.origin)

    routes.raw("POST", PATH, serve)
