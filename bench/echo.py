"""The bare bases that calls are measured against: asyncio and one protocol, with no API behind it.

`ByteEcho` is the floor: it finds the end of a head, trusts `Content-Length`, and sends bytes back; nothing is parsed,
checked, limited, decoded or encoded. `CallEcho` is an echo of *calls*: HTTP by llhttp (`httptools`), the call decoded
by this project's codec, its second parameter encoded again. Both answer with as many bytes as the path of the request
says (`POST /350`), for answers larger than an echo would be.

Run as `python -m bench.echo DIRECTORY`: each listens on a Unix socket in the directory (`bytes`, `calls`) and, with a
certificate of its own, on a free port of the loopback interface; the ports are told in that order.
"""

from __future__ import annotations

import asyncio
import sys
from functools import cache
from pathlib import Path

import httptools

from domzero.front.certificates import ensure_certificate, tls_context
from domzero.wire.xmlrpc import decode_call, escape

_LENGTH = b"content-length:"
_HEAD = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-type: text/xml\r\ncontent-length: %d\r\n\r\n"
_START = (
    b'<?xml version="1.0"?><methodResponse><params><param><value><struct><member><name>Status</name>'
    b"<value>Success</value></member><member><name>Value</name><value>"
)
_END = b"</value></member></struct></value></param></params></methodResponse>"


@cache
def filling(size: int) -> bytes:
    """So many bytes, none for a negative size."""
    return b"x" * size


class ByteEcho(asyncio.Protocol):
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
            answer = filling(int(buffer[6 : buffer.find(b" ", 6)]))
            self._transport.write(_HEAD % len(answer) + answer)
            buffer = buffer[total:]
        self._buffer = buffer


class CallEcho(asyncio.Protocol):
    """Answers every call with its second parameter."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._size = 0
        self._body = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """The parser found the path."""
        self._size = int(url[1:])

    def on_body(self, body: bytes) -> None:
        """The parser found some of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """The parser is through with a request."""
        value = escape(decode_call(self._body).params[1]).encode()
        self._body = b""
        answer = b"".join((_START, value, filling(self._size - len(_START) - len(value) - len(_END)), _END))
        self._transport.write(_HEAD % len(answer) + answer)


async def serve(directory: Path) -> None:
    """Serve until killed, telling the ports first."""
    loop = asyncio.get_running_loop()
    context = tls_context(ensure_certificate(directory, ["localhost"], ["127.0.0.1"]))
    servers = []
    for name, protocol in (("bytes", ByteEcho), ("calls", CallEcho)):
        servers.append(await loop.create_unix_server(protocol, str(directory / name)))
        servers.append(await loop.create_server(protocol, "127.0.0.1", 0, ssl=context))
    print("ready", *(server.sockets[0].getsockname()[1] for server in servers[1::2]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
