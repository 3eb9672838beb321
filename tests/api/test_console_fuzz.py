"""Consoles whose viewers send anything at all, in pieces, slowly, or go in the middle: the next viewer is served."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.harness import InProcessHost
from tests.api.viewer import Stream, connect, frame, local, request, tls, web_socket

GREETING = b"RFB 003.008\n\x01\x00"
MESSAGES = (
    struct.pack(">BBHHHH", 3, 0, 0, 0, 640, 384),
    struct.pack(">B3xBBBBHHHBBB3x", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0),
    struct.pack(">BxHi", 2, 1, 0),
    struct.pack(">B?xxI", 4, True, 0x61),
    struct.pack(">BBHH", 5, 0, 1, 1),
    struct.pack(">B3xI", 6, 4) + b"text",
)


@pytest.fixture(params=["card", "text", "serial", "host"])
def query(request: pytest.FixtureRequest, api: Any, session: Any, machine: str) -> str:
    """One console of each kind."""
    if request.param == "host":
        vm = api.host.get_control_domain(api.host.get_all()[0])
        return f"ref={vm}&session_id={session.handle}"
    api.VM.set_platform(machine, {"vga": "std"} if request.param == "card" else {})
    api.VM.start(machine, False, False)
    wanted = "vt100" if request.param == "serial" else "rfb"
    found = {api.console.get_protocol(ref): ref for ref in api.VM.get_consoles(machine)}
    return f"ref={found[wanted]}&session_id={session.handle}"


@pytest.fixture
def opened() -> Iterator[Callable[[Stream], Stream]]:
    streams: list[Stream] = []

    def note(stream: Stream) -> Stream:
        streams.append(stream)
        return stream

    yield note
    for stream in streams:
        stream.close()


def until_nobody_looks(host: InProcessHost) -> None:
    until_fewer_look(host, 1)


def until_fewer_look(host: InProcessHost, viewers: int) -> None:
    deadline = time.monotonic() + 30
    while len(host.daemon.consoles.viewings) >= viewers:
        assert time.monotonic() < deadline, "a viewing is left"
        time.sleep(0.01)


def hostile(source: random.Random) -> bytes:
    """Something between RFB and noise."""
    parts = [GREETING] if source.random() < 0.7 else []
    for _ in range(source.randrange(1, 12)):
        part = bytearray(source.choice(MESSAGES) if source.random() < 0.7 else source.randbytes(source.randrange(40)))
        if part and source.random() < 0.3:
            part[source.randrange(len(part))] = source.randrange(256)
        parts.append(bytes(part))
    return b"".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["connect", "web socket"])
def test_whatever_viewers_send(host: InProcessHost, query: str, opened: Callable[[Stream], Stream], way: str) -> None:
    source = random.Random(way)
    for _ in range(25):
        ask = connect if way == "connect" else web_socket
        # The host may be busy with those who went before, and one too many is sent away.
        until_fewer_look(host, host.daemon.consoles.limits.per_console)
        status, _, stream = ask(tls(host.url), query)
        assert status == 200 if way == "connect" else status == 101
        data = hostile(source)
        if way == "web socket" and source.random() < 0.8:
            data = b"".join(
                frame(data[at : at + 100], source.choice((0, 1, 2, 2, 2, 9, 15))) for at in range(0, len(data), 100)
            )
        try:
            for at in range(0, len(data), step := source.randrange(1, 60)):
                stream.send(data[at : at + step])
        except OSError:
            pass  # it was hung up on, which is an answer too
        if source.random() < 0.5:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
    until_nobody_looks(host)
    _, _, polite = connect(tls(host.url), query)
    assert opened(polite).exactly(1)


def test_a_viewer_that_says_nothing_and_goes(host: InProcessHost, query: str) -> None:
    for _ in range(3):
        connect(tls(host.url), query)[2].close()
    until_nobody_looks(host)


def test_a_greeting_byte_by_byte(
    host: InProcessHost, api: Any, session: Any, opened: Callable[[Stream], Stream]
) -> None:
    vm = api.host.get_control_domain(api.host.get_all()[0])
    _, _, stream = connect(tls(host.url), f"ref={vm}&session_id={session.handle}")
    opened(stream).exactly(12)
    for byte in b"RFB 003.003\n":
        stream.send(bytes((byte,)))
    assert stream.exactly(4) == b"\0\0\0\x01"
    stream.send(b"\x01")
    assert stream.exactly(4) == struct.pack(">HH", 640, 384)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("CONNECT / HTTP/1.0", 405),
        ("CONNECT /nothing?ref=x HTTP/1.0", 404),
        ("CONNECT example.org:443 HTTP/1.1", 404),
        ("CONNECT /console HTTP/1.0", 400),
        ("CONNECT /console?ref=OpaqueRef:NULL HTTP/1.0", 404),
        ("CONNECT /console?ref=a&ref=b HTTP/1.0", 404),
        ("CONNECT /console?ref=" + "x" * 5000 + " HTTP/1.0", 404),
    ],
)
def test_connect_to_nothing(host: InProcessHost, line: str, status: int) -> None:
    """By the socket of root, so that it is no question of who asks."""
    assert host.settings.state_dir is not None
    with local(host.settings.state_dir / "run" / "xapi") as connection:
        assert request(connection, line)[0] == status
