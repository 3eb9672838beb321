"""The bare base that calls are measured against: asyncio and one protocol, no API.

It finds the end of a head, trusts `Content-Length`, and answers with as many bytes as the request's path says
(`POST /350`). Nothing is checked, limited, decoded or encoded: what the API's server does beyond this is what it costs.
Run as `python -m bench.echo SOCKET STATE`: listens on a Unix socket and, with a certificate of its own, on a free port.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from functools import cache
from pathlib import Path

from domzero.front.certificates import ensure_certificate, tls_context

_LENGTH = b"content-length:"
_HEAD = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-type: text/xml\r\ncontent-length: %d\r\n\r\n"


@cache
def body(size: int) -> bytes:
    """What is sent back."""
    return b"x" * size


class Echo(asyncio.Protocol):
    """Answers every request with a body of the size that it asks for."""

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
            answer = body(int(buffer[6 : buffer.find(b" ", 6)]))
            self._transport.write(_HEAD % len(answer) + answer)
            buffer = buffer[total:]
        self._buffer = buffer


async def serve(path: Path, context: ssl.SSLContext) -> None:
    """Serve until killed, telling the port first."""
    loop = asyncio.get_running_loop()
    await loop.create_unix_server(Echo, str(path))
    tls = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context)
    print(f"ready {tls.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    certificate = ensure_certificate(Path(sys.argv[2]), ["localhost"], ["127.0.0.1"])
    asyncio.run(serve(Path(sys.argv[1]), tls_context(certificate)))
