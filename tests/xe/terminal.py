"""Two ways to give a command: our client as people run it, and a client of the bare protocol that shares no code."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.api.harness import InProcessHost

PREFIX = b"XenSource thin CLI protocol"
HELLO = PREFIX + struct.pack("<ii", 0, 2)
ROOT = Path(__file__).parents[2]


@dataclass
class Said:
    """What a command printed, and its exit code."""

    out: str = ""
    err: str = ""
    code: int | None = None
    errors: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


def socket_of(host: InProcessHost) -> Path:
    """The host's Unix socket."""
    assert host.settings.state_dir is not None
    return Path(host.settings.state_dir, "run", "xapi")


def port_of(host: InProcessHost) -> int:
    return int(host.url.rsplit(":", 1)[1])


def secured(host: InProcessHost) -> socket.socket:
    """A connection by TLS, which has to prove who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port_of(host)), 30))


def local(host: InProcessHost) -> socket.socket:
    """A connection by the Unix socket, which is root's."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(str(socket_of(host)))
    return connection


def request(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"POST /cli HTTP/1.0\r\nContent-length: %d\r\n\r\n" % size + body


class RawTerminal:
    """A client as the protocol's description has it."""

    def __init__(self, connection: socket.socket, files: Mapping[str, bytes], answers: Sequence[str]) -> None:
        self._connection = connection
        self._files = files
        self._answers = list(answers)

    def run(self, arguments: Sequence[str]) -> Said:
        self._connection.sendall(request("\n".join(arguments).encode()))
        assert self._exactly(len(HELLO)) == HELLO
        self._connection.sendall(HELLO)
        said = Said()
        while said.code is None:
            (length,) = struct.unpack("<i", self._exactly(4))
            self._obey(self._exactly(length), said)
        assert self._connection.recv(1) == b""
        return said

    def _obey(self, payload: bytes, said: Said) -> None:
        kind, tag = struct.unpack_from("<ii", payload)
        assert kind == 9
        if tag == 0:
            said.out += self._strings(payload[8:], 1)[0] + "\n"
        elif tag == 16:
            said.err += self._strings(payload[8:], 1)[0]
        elif tag == 4:
            (said.code,) = struct.unpack_from("<i", payload, 8)
        elif tag == 3:
            self._blob(self._answers.pop(0).encode())
        elif tag == 1:
            content = self._files.get(self._strings(payload[8:], 1)[0])
            self._connection.sendall(struct.pack("<iii", 8, 10, 6 if content is None else 5))
            if content is not None:
                self._blob(content)
        elif tag == 14:
            (code,) = self._strings(payload[8:], 1)
            rest = payload[12 + len(code.encode()) :]
            (count,) = struct.unpack_from("<i", rest)
            said.errors.append((code, tuple(self._strings(rest[4:], count))))
        else:
            raise AssertionError(f"the host sent {payload!r}")

    def _blob(self, content: bytes) -> None:
        head, end = struct.pack("<iiii", 12, 11, 7, len(content)), struct.pack("<iii", 8, 11, 8)
        self._connection.sendall(head + content + end)

    def _strings(self, raw: bytes, count: int) -> list[str]:
        found = []
        for _ in range(count):
            (length,) = struct.unpack_from("<i", raw)
            found.append(raw[4 : 4 + length].decode())
            raw = raw[4 + length :]
        return found

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._connection.recv(size - len(data))
            assert more, "the host closed the connection"
            data += more
        return data


def raw(
    host: InProcessHost, *arguments: str, answers: Sequence[str] = (), files: Mapping[str, bytes] | None = None
) -> Said:
    """Give a command as root, by the bare protocol."""
    with local(host) as connection:
        return RawTerminal(connection, files or {}, answers).run(arguments)


def remote(host: InProcessHost, user: str, password: str, *arguments: str) -> Said:
    """Give a command as somebody, by TLS and the bare protocol."""
    with secured(host) as connection:
        lines = [*arguments, f"username={user}", f"password={password}"]
        return RawTerminal(connection, {}, ()).run(lines)


def printed(host: InProcessHost, *arguments: str, answers: Sequence[str] = ()) -> str:
    """What a command that must succeed prints, as root."""
    said = raw(host, *arguments, answers=answers)
    assert (said.code, said.err, said.errors) == (0, "", []), said
    return said.out


def refused(host: InProcessHost, *arguments: str) -> str:
    """What a command that must fail says on standard error, as root."""
    said = raw(host, *arguments)
    assert (said.code, said.out, said.errors) == (1, "", []), said
    return said.err


def process(
    *arguments: str, typed: str = "", home: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run our client."""
    return subprocess.run(
        [sys.executable, "-m", "domzero.client.xe", *arguments], input=typed, capture_output=True, text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": str(home or "/nonexistent"), "PYTHONPATH": str(ROOT / "src"),
        **environment},
    )  # fmt: skip
