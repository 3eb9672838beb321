"""A small client over the Unix socket, quick enough not to be what is measured."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from domzero.wire.xmlrpc import decode_response, encode_call

HEAD = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: "
CHUNK = 1 << 20


class RefusedError(Exception):
    """The server answered with an error: its code and parameters."""


def request(method: str, *params: Any) -> bytes:
    """A whole HTTP request."""
    body = encode_call(method, params)
    return f"{HEAD}{len(body)}\r\n\r\n".encode() + body


class Api:
    """One connection with a session of root."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self.session = str(self.call("session.login_with_password", "root", "", "1.0", "bench"))

    def __call__(self, method: str, *params: Any) -> Any:
        """A call in the session. Raises `RefusedError`."""
        return self.call(method, self.session, *params)

    def call(self, method: str, *params: Any) -> Any:
        """A call as it is. Raises `RefusedError`."""
        answer = decode_response(bytes(self.exchange(request(method, *params))))
        if answer["Status"] != "Success":
            raise RefusedError(*answer["ErrorDescription"])
        return answer["Value"]

    def exchange(self, content: bytes) -> memoryview:
        """Send a whole request and receive the body of the answer, not decoded."""
        self._socket.sendall(content)
        received = bytearray(self._socket.recv(CHUNK))
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        at = received.find(b"content-length: ") + 16
        total = end + 4 + int(received[at : received.find(b"\r", at)])
        while len(received) < total:
            received += self._receive()
        return memoryview(received)[end + 4 :]

    def close(self) -> None:
        """End the session and the connection."""
        self("session.logout")
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(CHUNK)
        if not data:
            raise ConnectionError("the server hung up")
        return data
