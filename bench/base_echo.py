"""The bare base that the front is measured against: asyncio, one protocol, no API.

It finds the end of a head, trusts `Content-Length`, and sends the body back. Nothing is checked, limited or decoded:
what the front does beyond this is what it costs.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

_LENGTH = b"content-length:"
_HEAD = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-type: text/xml\r\ncontent-length: %d\r\n\r\n"


class Echo(asyncio.Protocol):
    """Answers every request with its own body."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            at = buffer.lower().find(_LENGTH, 0, end)
            total = end + 4 + int(buffer[at + len(_LENGTH) : buffer.find(b"\r", at)])
            if len(buffer) < total:
                break
            body = buffer[end + 4 : total]
            self._transport.write(_HEAD % len(body) + body)
            buffer = buffer[total:]
        self._buffer = buffer


async def serve_echo(path: Path, context: ssl.SSLContext) -> tuple[list[asyncio.AbstractServer], int]:
    """Listen on a Unix socket and, with TLS, on a free port of loopback. Returns the servers and the port."""
    loop = asyncio.get_running_loop()
    unix = await loop.create_unix_server(Echo, str(path))
    tls = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context)
    return [unix, tls], int(tls.sockets[0].getsockname()[1])
