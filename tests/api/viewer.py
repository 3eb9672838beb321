"""A viewer of consoles with blocking sockets, as the guide's own programs are, and the RFB that they speak."""

from __future__ import annotations

import base64
import os
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.api.trust import unverified

PATIENCE = 20.0


def tls(url: str) -> socket.socket:
    """A connection to a host's HTTPS port."""
    port = int(url.rsplit(":", 1)[1])
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return unverified().wrap_socket(plain)


def local(path: Path) -> socket.socket:
    """A connection to a host's Unix socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(path))
    return connection


@dataclass
class Stream:
    """Bytes that come and go."""

    socket: Any
    ahead: bytearray = field(default_factory=bytearray)

    def exactly(self, count: int) -> bytes:
        while len(self.ahead) < count:
            self.ahead += (data := self.socket.recv(1 << 16))
            assert data, f"the connection ended after {bytes(self.ahead)!r}"
        found = bytes(self.ahead[:count])
        del self.ahead[:count]
        return found

    def until(self, mark: bytes) -> bytes:
        looked = 0
        while (at := self.ahead.find(mark, looked)) < 0:
            looked = max(0, len(self.ahead) - len(mark))
            self.ahead += (data := self.socket.recv(1 << 16))
            assert data, f"the connection ended after {bytes(self.ahead)!r}"
        return self.exactly(at + len(mark))

    def rest(self) -> bytes:
        """All until the other side hangs up."""
        while data := self.socket.recv(1 << 16):
            self.ahead += data
        return bytes(self.ahead)

    def forget_the_past(self) -> None:
        """Drop what is shown at once of what was written before."""
        self.socket.settimeout(0.5)
        try:
            while self.socket.recv(1 << 16):
                continue
        except TimeoutError:
            self.socket.settimeout(PATIENCE)
        self.ahead.clear()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()


def request(connection: socket.socket, line: str, *headers: str) -> tuple[int, str, Stream]:
    """Send a request and read the head of the answer: its status, itself, and what follows."""
    stream = Stream(connection)
    stream.send("".join(f"{text}\r\n" for text in (line, *headers, "")).encode())
    head = stream.until(b"\r\n\r\n").decode()
    return int(head.split()[1]), head, stream


def connect(connection: socket.socket, query: str, *headers: str, version: str = "1.0") -> tuple[int, str, Stream]:
    """Ask for a console."""
    return request(connection, f"CONNECT /console?{query} HTTP/{version}", *headers)


def web_socket(connection: socket.socket, query: str, *headers: str) -> tuple[int, str, Stream]:
    """The handshake of a browser."""
    key = base64.b64encode(os.urandom(16)).decode()
    return request(
        connection, f"GET /console?{query} HTTP/1.1", "Host: here", "Connection: keep-alive, Upgrade",
        "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Protocol: binary, base64", *headers,
    )  # fmt: skip


def frame(data: bytes, opcode: int = 2) -> bytes:
    """A client's frame (RFC 6455, section 5.2), masked as it must be."""
    mask = os.urandom(4)
    length = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
    return bytes((0x80 | opcode,)) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def read_frame(stream: Stream) -> tuple[int, bytes]:
    """Opcode and data of a server's frame."""
    first, second = stream.exactly(2)
    length = second
    if second == 126:
        (length,) = struct.unpack(">H", stream.exactly(2))
    elif second == 127:
        (length,) = struct.unpack(">Q", stream.exactly(8))
    return first & 15, stream.exactly(length)


def handshake(stream: Stream, version: str) -> tuple[int, int, str]:
    """An RFB viewer's handshake in that version; width, height and name."""
    assert stream.exactly(12) == b"RFB 003.008\n"
    stream.send(f"RFB {version}\n".encode())
    if version == "003.003":
        assert stream.exactly(4) == struct.pack(">I", 1)
    else:
        assert 1 in stream.exactly(stream.exactly(1)[0])
        stream.send(b"\x01")
        if version == "003.008":
            assert stream.exactly(4) == bytes(4)
    stream.send(b"\x00")
    width, height = struct.unpack(">HH", stream.exactly(4))
    stream.exactly(16)
    name = stream.exactly(struct.unpack(">I", stream.exactly(4))[0])
    return width, height, name.decode()


def picture(stream: Stream, width: int, height: int) -> bytes:
    """The whole screen, four bytes for each pixel (blue, green, red, nothing)."""
    little = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
    stream.send(b"\x00\x00\x00\x00" + little + struct.pack(">BxHi", 2, 1, 0))
    stream.send(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
    image = bytearray(width * height * 4)
    left = width * height
    while left > 0:
        assert stream.exactly(1) == b"\x00"
        _, count = struct.unpack(">BH", stream.exactly(3))
        for _ in range(count):
            x, y, across, down, encoding = struct.unpack(">HHHHi", stream.exactly(12))
            assert encoding == 0
            for line in range(y, y + down):
                at = (line * width + x) * 4
                image[at : at + across * 4] = stream.exactly(across * 4)
            left -= across * down
    return bytes(image)
