"""Servers of tests, of which nothing is left when their test has ended."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on loopback, on a free port unless one is named; gives its port.

    In the end its conversations are cut off, wherever they are.
    """
    conversations: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        try:
            await handler(reader, writer)
        except (asyncio.CancelledError, ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            return  # the other side, or the test, has had enough
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", port, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next turn
