"""Consoles of simulated machines, by every way in; who may look and for how long."""

from __future__ import annotations

import base64
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from websockets.sync.client import connect as websocket
from websockets.typing import Subprotocol

from domzero.paths import socket_path
from tests.api.guest import make_machine
from tests.api.harness import PASSWORD, InProcessHost, in_process, login, plain_proxy
from tests.api.viewer import Stream, connect, frame, handshake, local, picture, read_frame, request, tls, web_socket


@pytest.fixture
def running(api: Any, machine: str) -> str:
    """A machine with a graphics card, so that its screen is not its serial line."""
    api.VM.set_platform(machine, {"vga": "std"})
    api.VM.start(machine, False, False)
    return machine


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """Connections that are closed at the end of the test."""
    connections: list[socket.socket] = []

    def note(connection: socket.socket) -> socket.socket:
        connections.append(connection)
        return connection

    yield note
    for connection in connections:
        connection.close()


@pytest.fixture
def door(host: InProcessHost, opened: Callable[[Any], Any]) -> Callable[[], Any]:
    """Makes a new connection by TLS."""
    return lambda: opened(tls(host.url))


def consoles(api: Any, vm: str) -> dict[str, str]:
    """By protocol, the machine's consoles."""
    return {api.console.get_protocol(console): console for console in api.VM.get_consoles(vm)}


def viewers(host: InProcessHost) -> int:
    return len(host.daemon.consoles.viewings)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("version", ["003.003", "003.007", "003.008"])
def test_the_screen_by_connect(api: Any, session: Any, running: str, door: Any, version: str) -> None:
    ref = consoles(api, running)["rfb"]
    assert api.console.get_location(ref).endswith(f"/console?ref={ref}")
    status, head, stream = connect(door(), f"ref={ref}&session_id={session.handle}")
    assert status == 200
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    width, height, name = handshake(stream, version)
    assert name == f"simulated machine {api.VM.get_uuid(running)}"
    image = picture(stream, width, height)
    assert image[:3] == b"\xff\xff\xff", "the first bar is white"
    assert image[(width - 1) * 4 :][:3] == b"\0\0\0", "the last one is black"


def test_a_text_console_on_a_screen(api: Any, session: Any, machine: str, door: Any) -> None:
    """What is typed into one viewer's screen comes over the serial line and is shown to all."""
    api.VM.start(machine, False, False)
    query = f"ref={machine}&session_id={session.handle}"
    first, second = connect(door(), query)[2], connect(door(), query)[2]
    size = handshake(first, "003.003")[:2]
    assert size == (640, 384)
    assert handshake(second, "003.008") == (*size, api.VM.get_name_label(machine))
    before = picture(second, *size)
    _, _, serial = connect(door(), f"ref={consoles(api, machine)['vt100']}&session_id={session.handle}")
    serial.until(b"\n")
    for letter in b"hello":
        first.send(struct.pack(">B?xxI", 4, True, letter) + struct.pack(">B?xxI", 4, False, letter))
    assert serial.until(b"hello") == b"hello"
    until(lambda: picture(second, *size) != before)


def test_a_viewer_of_text_that_speaks_otherwise(
    host: InProcessHost, api: Any, session: Any, machine: str, door: Any
) -> None:
    api.VM.start(machine, False, False)
    query = f"ref={machine}&session_id={session.handle}"
    rude, polite = connect(door(), query)[2], connect(door(), query)[2]
    rude.send(b"GET / HTTP/1.1\r\n\r\n")
    rude.rest()
    assert handshake(polite, "003.008")[:2] == (640, 384)
    polite.close()
    until(lambda: viewers(host) == 0)


@pytest.mark.parametrize("by", ["ref of the console", "uuid of the console", "ref of the machine", "uuid of it"])
def test_names_of_a_console(api: Any, session: Any, running: str, door: Any, by: str) -> None:
    ref = consoles(api, running)["rfb"]
    query = {
        "ref of the console": f"ref={ref}",
        "uuid of the console": f"uuid={api.console.get_uuid(ref)}",
        "ref of the machine": f"ref={running}",
        "uuid of it": f"uuid={api.VM.get_uuid(running)}",
    }[by]
    status, _, stream = connect(door(), f"session_id={session.handle}&{query}", "Host: here", version="1.1")
    assert status == 200
    assert stream.exactly(12) == b"RFB 003.008\n"


@pytest.mark.parametrize("way", ["cookie", "cookie among others", "password"])
def test_ways_to_say_who_asks(host: InProcessHost, session: Any, running: str, door: Any, way: str) -> None:
    sessions = host.daemon.engine.sessions.live
    before = len(sessions)
    header = {
        "cookie": f"Cookie: session_id={session.handle}",
        "cookie among others": f"Cookie: a=b&session_id={session.handle}&c=d",
        "password": f"Authorization: Basic {base64.b64encode(f'root:{PASSWORD}'.encode()).decode()}",
    }[way]
    status, _, stream = connect(door(), f"ref={running}", header)
    assert status == 200
    assert stream.exactly(3) == b"RFB"
    stream.close()
    until(lambda: len(sessions) == before)


def test_the_unix_socket_is_trusted(host: InProcessHost, running: str, opened: Any) -> None:
    assert host.settings.state_dir is not None
    status, _, stream = connect(opened(local(socket_path(host.settings.state_dir / "run"))), f"ref={running}")
    assert status == 200
    assert stream.exactly(3) == b"RFB"


def test_the_serial_line_has_several_viewers(api: Any, session: Any, running: str, door: Any) -> None:
    ref = consoles(api, running)["vt100"]
    query = f"ref={ref}&session_id={session.handle}"
    banner = f"simulated machine {api.VM.get_uuid(running)}\r\n".encode()
    _, _, first = connect(door(), query)
    assert first.until(b"\n") == banner
    _, _, second = connect(door(), query)
    assert second.until(b"\n") == banner, "the past is shown to who comes later"
    first.send(b"hello\r")
    assert first.until(b"\r\n") == b"hello\r\n"
    assert second.until(b"\r\n") == b"hello\r\n"
    second.send(b"there\r")
    assert first.until(b"\r\n") == b"there\r\n"


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Basic !!!",
        "Authorization: Basic cm9vdA==",
        "Authorization: Basic /w==",
        "Authorization: Basic é",
    ],
)
def test_passwords_that_cannot_be_read(running: str, door: Any, header: str) -> None:
    assert connect(door(), f"ref={running}", header)[0] == 400


def test_a_session_for_emergencies_opens_nothing(host: InProcessHost, running: str, door: Any) -> None:
    proxy = plain_proxy(host.url)
    handle = proxy.session.slave_local_login_with_password("root", PASSWORD)["Value"]
    assert connect(door(), f"ref={running}&session_id={handle}")[0] == 401
    assert proxy.session.local_logout(handle)["Status"] == "Success"


@pytest.mark.slow
def test_viewers_leave_when_the_host_stops(tmp_path: Path) -> None:
    with in_process(tmp_path) as host:
        session = login(host.url)
        api = session.xenapi
        vm = make_machine(host, api, "looked at").vm
        api.VM.start(vm, False, False)
        streams = [web_socket(tls(host.url), f"ref={vm}&session_id={session.handle}")[2] for _ in range(2)]
        streams[0].close()
        read_frame(streams[1])
        begun = time.monotonic()
    assert time.monotonic() - begun < 8
    assert read_frame(streams[1]) == (8, b"\x03\xe9"), "going away"
    streams[1].close()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("session_id={session}", 400),
        ("session_id={session}&ref=", 400),
        ("session_id={session}&ref=OpaqueRef:nothing", 404),
        ("session_id={session}&uuid=../../etc/passwd", 404),
        ("session_id={session}&uuid=%00%ff", 404),
        ("session_id=OpaqueRef:wrong&ref={vm}", 401),
        ("session_id=&ref={vm}", 401),
        ("ref={vm}", 401),
    ],
)
def test_refusals(api: Any, session: Any, running: str, door: Any, query: str, status: int) -> None:
    answer, head, _ = connect(door(), query.format(session=session.handle, vm=running))
    assert answer == status
    assert (status == 401) == ('www-authenticate: Basic realm="console"' in head)


def test_a_halted_machine_has_none(session: Any, machine: str, door: Any) -> None:
    assert connect(door(), f"ref={machine}&session_id={session.handle}")[0] == 404


def test_somebody_who_may_only_read_may_not_look(host: InProcessHost, running: str, door: Any) -> None:
    host.run(host.daemon.engine.users.add("reader", "a password", "read-only"))
    session = login(host.url, "reader", "a password")
    assert connect(door(), f"ref={running}&session_id={session.handle}")[0] == 403


def test_a_viewing_ends_with_its_session(host: InProcessHost, running: str, door: Any) -> None:
    session = login(host.url)
    _, _, stream = connect(door(), f"ref={running}&session_id={session.handle}")
    stream.exactly(12)
    assert viewers(host) == 1
    session.xenapi.session.logout()
    assert stream.rest() == b""
    until(lambda: viewers(host) == 0)


@pytest.mark.parametrize("protocol", ["rfb", "vt100"])
def test_a_viewing_ends_with_its_machine(
    host: InProcessHost, api: Any, session: Any, running: str, door: Any, protocol: str
) -> None:
    _, _, stream = connect(door(), f"ref={consoles(api, running)[protocol]}&session_id={session.handle}")
    stream.exactly(12)
    api.VM.hard_shutdown(running)
    stream.rest()
    until(lambda: viewers(host) == 0)


def test_a_viewing_ends_with_the_role(host: InProcessHost, running: str, door: Any) -> None:
    host.run(host.daemon.engine.users.add("operator", "a password", "vm-operator"))
    session = login(host.url, "operator", "a password")
    _, _, stream = connect(door(), f"ref={running}&session_id={session.handle}")
    stream.exactly(12)
    host.run(host.daemon.engine.users.remove("operator"))
    assert stream.rest() == b""


def test_a_viewer_that_vanishes_is_forgotten(host: InProcessHost, session: Any, running: str, door: Any) -> None:
    _, _, stream = connect(door(), f"ref={running}&session_id={session.handle}")
    stream.exactly(12)
    # A reset in place of a goodbye.
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.close()
    until(lambda: viewers(host) == 0)


@pytest.mark.slow
def test_viewers_of_one_console_are_counted(host: InProcessHost, session: Any, running: str, door: Any) -> None:
    query = f"ref={running}&session_id={session.handle}"
    most = host.daemon.consoles.limits.per_console
    streams = [connect(door(), query) for _ in range(most)]
    assert {status for status, _, _ in streams} == {200}
    assert connect(door(), query)[0] == 503
    streams[0][2].close()
    until(lambda: viewers(host) < most)
    assert connect(door(), query)[0] == 200


@pytest.mark.parametrize("way", ["query", "cookie"])
def test_the_screen_by_web_socket(api: Any, session: Any, running: str, door: Any, way: str) -> None:
    handle = f"session_id={session.handle}"
    query, headers = (f"&{handle}", []) if way == "query" else ("", [f"Cookie: {handle}", "Origin: https://here"])
    status, head, stream = web_socket(door(), f"ref={running}{query}", *headers)
    assert status == 101
    assert "sec-websocket-protocol: binary" in head.lower()
    assert read_frame(stream) == (2, b"RFB 003.008\n")
    stream.send(frame(b"RFB 003.008\n"))
    assert read_frame(stream) == (2, b"\x01\x01")
    stream.send(frame(b"are you there?", opcode=9))
    assert read_frame(stream) == (10, b"are you there?")
    stream.send(frame(b"\x03\xe8", opcode=8))
    assert read_frame(stream) == (8, b"\x03\xe8")
    assert stream.rest() == b""


def test_a_client_that_others_wrote(host: InProcessHost, session: Any, running: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"{host.url.replace('https', 'wss')}/console?ref={running}&session_id={session.handle}"
    with websocket(url, ssl=context, subprotocols=[Subprotocol("binary")], proxy=None) as viewer:
        assert viewer.subprotocol == "binary"
        assert viewer.recv(10) == b"RFB 003.008\n"
        viewer.send([b"RFB 003", b".003\n"])
        assert viewer.recv(10) == b"\0\0\0\x01"
        viewer.ping().wait(10)


def test_the_serial_line_by_web_socket(api: Any, session: Any, running: str, door: Any) -> None:
    query = f"ref={consoles(api, running)['vt100']}&session_id={session.handle}"
    _, _, stream = web_socket(door(), query)
    assert b"simulated machine" in read_frame(stream)[1]
    stream.send(frame(b"typed\r", opcode=1))
    assert read_frame(stream) == (2, b"typed\r\n")
    api.VM.hard_shutdown(running)
    assert read_frame(stream) == (8, b"\x03\xe9"), "going away"


def test_other_sites_cannot_use_a_browsers_cookie(session: Any, running: str, door: Any) -> None:
    cookie, evil = f"Cookie: session_id={session.handle}", "Origin: https://evil.example"
    assert web_socket(door(), f"ref={running}", cookie, evil)[0] == 403
    assert web_socket(door(), f"ref={running}&session_id={session.handle}", evil)[0] == 101


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 426),
        (["Upgrade: h2c", "Connection: Upgrade"], 426),
        (["Upgrade: websocket", "Connection: Upgrade"], 400),
        (["Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"], 400),
        (["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 7"], 400),
    ],
)
def test_handshakes_that_are_none(session: Any, running: str, door: Any, headers: list[str], status: int) -> None:
    line = f"GET /console?ref={running}&session_id={session.handle} HTTP/1.1"
    assert request(door(), line, "Host: here", *headers)[0] == status


@pytest.mark.parametrize("rubbish", [b"\x82\x05hello", b"\xf2\x80abcd", b"\x82\xff" + b"\xff" * 8, b"\x83\x80abcd"])
def test_frames_that_are_none(host: InProcessHost, session: Any, running: str, door: Any, rubbish: bytes) -> None:
    """Unmasked, with reserved bits, absurdly long, of an unknown kind."""
    _, _, stream = web_socket(door(), f"ref={running}&session_id={session.handle}")
    read_frame(stream)
    stream.send(rubbish)
    assert read_frame(stream)[0] == 8
    until(lambda: viewers(host) == 0)


@pytest.mark.slow
def test_a_slow_viewer_delays_nobody(api: Any, session: Any, running: str, door: Any) -> None:
    """One viewer reads nothing of a serial line on which much is written; another gets all of it."""
    query = f"ref={consoles(api, running)['vt100']}&session_id={session.handle}"
    _, _, slow = connect(door(), query)
    _, _, quick = connect(door(), query)
    quick.until(b"\n")
    size = 3 << 20
    typing = threading.Thread(target=slow.send, args=(b"x" * size,))
    typing.start()
    received = 0
    while received < size:
        received += len(quick.socket.recv(1 << 16))
    typing.join(10)
    assert not typing.is_alive()
    assert isinstance(slow, Stream)


@pytest.mark.parametrize(
    ("accept", "begins", "kind"),
    [([], b"\xff\xd8\xff", "image/jpeg"), (["Accept: image/png"], b"\x89PNG", "image/png")],
)
def test_a_picture_of_the_screen(
    session: Any, running: str, door: Any, accept: list[str], begins: bytes, kind: str
) -> None:
    line = f"GET /vncsnapshot?ref={running}&session_id={session.handle} HTTP/1.0"
    status, head, stream = request(door(), line, *accept)
    assert (status, f"content-type: {kind}" in head) == (200, True)
    content = stream.rest()
    assert content.startswith(begins)
    with Image.open(BytesIO(content)) as image:
        assert image.size == (320, 200)
        first, red = image.convert("RGB").getpixel((20, 100)), image.convert("RGB").getpixel((220, 100))
    assert isinstance(first, tuple)
    assert isinstance(red, tuple)
    assert min(first) > 240
    assert red[0] > 240
    assert max(red[1:]) < 20


def test_no_picture_without_a_screen_or_a_session(api: Any, session: Any, running: str, door: Any) -> None:
    serial = consoles(api, running)["vt100"]
    assert request(door(), f"GET /vncsnapshot?ref={serial}&session_id={session.handle} HTTP/1.0")[0] == 404
    assert request(door(), f"GET /vncsnapshot?ref={running} HTTP/1.0")[0] == 401
    assert request(door(), f"GET /vncsnapshot?session_id={session.handle} HTTP/1.0")[0] == 400
