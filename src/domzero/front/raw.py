"""Handing a connection to a raw handler, as an asyncio stream pair."""

from __future__ import annotations

import asyncio
import logging

from domzero.front.hub import Hub, Member
from domzero.front.routes import RawHandler, RawStream, Request

log = logging.getLogger(__name__)

STREAM_BUFFER = 256 << 10
"""Half of what is read ahead of a raw handler before the sender has to wait."""


class _Protocol(asyncio.StreamReaderProtocol):
    """asyncio's own stream protocol, which also tells the hub when the connection ends."""

    def __init__(self, reader: asyncio.StreamReader, hub: Hub, member: Member) -> None:
        super().__init__(reader, loop=hub.loop)
        self._hub = hub
        self._member = member

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._hub.leave(self._member)


def hand_over(
    hub: Hub, member: Member, transport: asyncio.Transport, handler: RawHandler, request: Request, rest: bytes
) -> None:
    """From here on the transport belongs to the handler; `rest` is what came behind the request's head."""
    reader = asyncio.StreamReader(STREAM_BUFFER, hub.loop)
    protocol = _Protocol(reader, hub, member)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    stream = RawStream(reader, asyncio.StreamWriter(transport, protocol, reader, hub.loop))
    if rest:
        reader.feed_data(rest)
    hub.start(_run(handler, request, stream))


async def _run(handler: RawHandler, request: Request, stream: RawStream) -> None:
    try:
        await handler(request, stream)
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        log.info("%s %s ended early: %s", request.head.method, request.head.path, error)
    except Exception:
        log.exception("%s %s failed unexpectedly", request.head.method, request.head.path)
    finally:
        stream.writer.close()
