"""What the way through the host adds to a console: a picture of the screen, and an echo on the serial line."""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.client import Api
from bench.hosts import Host, host, new_machine
from bench.report import Row, Section, Spread, Target, spread

NOTES = """A guest on QEMU under TCG with a graphics card. A picture is from asking for the whole screen, not
incrementally, until its last byte (QEMU sends at its own pace of pictures); beside it, the same at QEMU's own socket.
An echo is from a key on the serial line until the guest has sent it back."""

AS_QUICK = Target(most=1.5)
ECHO = Target(most=3)
"""Both are far below what a person notices; the way through TLS and the host is several times a bare socket's."""
PATIENCE = 30.0
LITTLE = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)

Connection = Any
"""A socket, bare or in TLS."""


def measure(quick: bool) -> Section:
    """All of it."""
    section = Section("Consoles", NOTES)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, host(Path(directory), "qemu") as serving:
        api = serving.api()
        vm = new_machine(api, "looked at")
        api("VM.set_platform", vm, {"vga": "std"})
        api("VM.start", vm, False, False)
        try:
            wait_for_login(serving, vm)
            for row in pictures(serving, api, vm, 10 if quick else 100):
                section.add(row)
            for row in echoes(serving, api, vm, 20 if quick else 300):
                section.add(row)
        finally:
            api("VM.hard_shutdown", vm)
    return section


def pictures(serving: Host, api: Api, vm: str, count: int) -> Iterator[Row]:
    """The screen, over TLS and over the Unix socket."""
    with contextmanager(direct)(socket_of(serving, "vnc.sock")) as connection:
        beside = screen_times(connection, count)
    for name, way in (("TLS", tls), ("the Unix socket", local)):
        with through(serving, api, console(api, vm, "rfb"), way) as connection:
            ours = screen_times(connection, count)
        yield compared(f"a picture of the screen over {name}, to QEMU's own socket", ours, beside, AS_QUICK)


def echoes(serving: Host, api: Api, vm: str, count: int) -> Iterator[Row]:
    """The serial line, likewise; it takes one direct connection at a time."""
    with contextmanager(direct)(socket_of(serving, "serial.sock")) as connection:
        beside = echo_times(connection, count)
    for name, way in (("TLS", tls), ("the Unix socket", local)):
        with through(serving, api, console(api, vm, "vt100"), way) as connection:
            ours = echo_times(connection, count)
        yield compared(f"an echo on the serial line over {name}, to QEMU's own socket", ours, beside, ECHO)


def compared(what: str, ours: Spread, beside: Spread, target: Target | None = None) -> Row:
    return Row(what, ours.median / beside.median, ours.text("ms", 1000), beside.text("ms", 1000), target)


def screen_times(connection: Connection, count: int) -> Spread:
    """Seconds for each whole picture."""
    exactly(connection, 12)
    connection.sendall(b"RFB 003.003\n")
    exactly(connection, 4)
    connection.sendall(b"\x01")
    width, height = struct.unpack(">HH", exactly(connection, 4))
    exactly(connection, struct.unpack(">16xI", exactly(connection, 20))[0])
    connection.sendall(b"\0\0\0\0" + LITTLE + struct.pack(">BxHi", 2, 1, 0))
    wish = struct.pack(">BBHHHH", 3, 0, 0, 0, width, height)
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        connection.sendall(wish)
        missing = width * height
        while missing > 0:
            for _ in range(struct.unpack(">BxH", exactly(connection, 4))[1]):
                across, down = struct.unpack(">4xHH4x", exactly(connection, 12))
                exactly(connection, across * down * 4)
                missing -= across * down
        times.append(time.perf_counter() - begin)
    return spread(times[1:])


def echo_times(connection: Connection, count: int) -> Spread:
    """Seconds for each key; a line is ended now and then."""
    settle(connection)
    times = []
    for number in range(count):
        begin = time.perf_counter()
        connection.sendall(b"x")
        while b"x" not in connection.recv(4096):
            continue
        times.append(time.perf_counter() - begin)
        if number % 30 == 29:
            connection.sendall(b"\x15")  # the line is taken back
            settle(connection)
    return spread(times)


def settle(connection: Connection) -> None:
    """Read until nothing has come for a while."""
    connection.settimeout(0.5)
    try:
        while connection.recv(1 << 16):
            continue
    except TimeoutError:
        connection.settimeout(PATIENCE)


def exactly(connection: Connection, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("the console ended")
        data += piece
    return bytes(data)


def direct(path: Path) -> Iterator[Connection]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        yield connection


def local(serving: Host) -> Iterator[Connection]:
    yield from direct(serving.socket)


def tls(serving: Host) -> Iterator[Connection]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", int(serving.port)), timeout=PATIENCE) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain) as secure:
            yield secure


@contextmanager
def through(serving: Host, api: Api, ref: str, way: Callable[[Host], Iterator[Connection]]) -> Iterator[Connection]:
    """A console as viewers have it."""
    with contextmanager(way)(serving) as connection:
        connection.sendall(f"CONNECT /console?ref={ref}&session_id={api.session} HTTP/1.0\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += exactly(connection, 1)
        yield connection


def console(api: Api, vm: str, protocol: str) -> str:
    return next(str(ref) for ref in api("VM.get_consoles", vm) if api("console.get_protocol", ref) == protocol)


def socket_of(serving: Host, name: str) -> Path:
    (path,) = (serving.state / "run").glob(f"*/{name}")
    return path


def wait_for_login(serving: Host, vm: str) -> None:
    log = socket_of(serving, "serial.log")
    end = time.monotonic() + 120
    while b"login:" not in log.read_bytes():
        if time.monotonic() > end:
            raise TimeoutError(f"{vm} does not come up")
        time.sleep(0.1)
