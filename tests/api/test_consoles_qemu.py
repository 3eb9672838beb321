"""Screens and serial lines of a real guest, through the host's doors."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO

import pytest
from PIL import Image

from domzero.front.consoles import ConsoleLimits
from tests.api.guest import Guest, make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login
from tests.api.viewer import Stream, connect, handshake, picture, request, tls, web_socket

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("qemu"), hypervisor="qemu", accel="tcg") as host:
        yield host


@pytest.fixture(scope="module")
def guest(host: InProcessHost) -> Iterator[Guest]:
    """A running Linux with a login on its screen and on its serial line."""
    api = login(host.url).xenapi
    guest = make_machine(host, api, "looked at")
    api.VM.set_platform(guest.vm, {"vga": "std"})
    api.VM.start(guest.vm, False, False)
    guest.wait_until_up()
    yield guest
    if guest.vm in api.VM.get_all():
        remove_machine(api, guest.vm)


@pytest.fixture(scope="module")
def textual(guest: Guest) -> Guest:
    """The same machine, from its next boot on without a graphics card: its screen is the serial line then."""
    guest.api.VM.set_platform(guest.vm, {})
    guest.api.VM.hard_reboot(guest.vm)
    guest.wait_until_up()
    return guest


@pytest.fixture
def look(host: InProcessHost, guest: Guest) -> Iterator[Callable[[str], Stream]]:
    """Opens a console of the guest that speaks a protocol."""
    session = login(host.url)
    api = guest.api
    streams: list[Stream] = []

    def open_(protocol: str) -> Stream:
        consoles = {api.console.get_protocol(ref): ref for ref in api.VM.get_consoles(guest.vm)}
        status, _, stream = connect(tls(host.url), f"ref={consoles[protocol]}&session_id={session.handle}")
        assert status == 200
        streams.append(stream)
        return stream

    yield open_
    for stream in streams:
        stream.close()


def log_in(stream: Stream) -> None:
    stream.forget_the_past()
    stream.send(b"\n")
    stream.until(b"login: ")
    stream.send(b"root\n")
    stream.until(b"# ")


@pytest.mark.parametrize("version", ["003.003", "003.007", "003.008"])
def test_the_screen(look: Callable[[str], Stream], version: str) -> None:
    stream = look("rfb")
    width, height, _ = handshake(stream, version)
    image = picture(stream, width, height)
    assert len({image[at : at + 3] for at in range(0, len(image), 4)}) > 1, "something is written on it"


def test_nobody_can_have_the_screen_alone(look: Callable[[str], Stream]) -> None:
    """Each of these asks to be the only viewer (a shared flag of 0)."""
    first, second = look("rfb"), look("rfb")
    size = handshake(first, "003.008")[:2]
    assert handshake(second, "003.008")[:2] == size
    assert picture(second, *size)
    assert picture(first, *size)


def test_a_command_on_the_serial_line(look: Callable[[str], Stream]) -> None:
    stream, other = look("vt100"), look("vt100")
    log_in(stream)
    stream.send(b"echo $((6 * 7)) > /dev/null; echo answer=$((6 * 7))\n")
    stream.until(b"answer=42")
    other.until(b"answer=42")
    stream.send(b"exit\n")
    stream.until(b"login: ")


def test_a_viewer_who_does_not_read_slows_nobody(look: Callable[[str], Stream]) -> None:
    asleep, awake = look("vt100"), look("vt100")
    log_in(awake)
    awake.send(b"yes 0123456789abcdef | head -n 25000; echo do''ne\n")
    awake.until(b"done")
    awake.send(b"exit\n")
    awake.until(b"login: ")
    assert asleep.socket.recv(1)


def test_a_viewer_of_the_screen_who_does_not_read(look: Callable[[str], Stream]) -> None:
    asleep, awake = look("rfb"), look("rfb")
    size = handshake(asleep, "003.008")[:2]
    handshake(awake, "003.008")
    wish = b"\x03\x00" + bytes(4) + size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big")
    asleep.socket.settimeout(5)
    sending = threading.Thread(target=asleep.send, args=(wish * 200,))
    sending.start()
    for _ in range(3):
        assert picture(awake, *size)
    sending.join(10)


def test_pictures_are_what_viewers_see(host: InProcessHost, guest: Guest, look: Callable[[str], Stream]) -> None:
    session = login(host.url)
    line = f"GET /vncsnapshot?uuid={guest.api.VM.get_uuid(guest.vm)}&session_id={session.handle} HTTP/1.0"
    with tls(host.url) as connection:
        content = request(connection, line, "Accept: image/png")[2].rest()
    with Image.open(BytesIO(content)) as image:
        shown = image.convert("RGB")
    viewer = look("rfb")
    width, height = handshake(viewer, "003.008")[:2]
    assert shown.size == (width, height)
    seen = Image.frombytes("RGB", (width, height), picture(viewer, width, height), "raw", "BGRX")
    left, right = shown.tobytes(), seen.tobytes()
    same = sum(a == b for a, b in zip(left, right, strict=True))
    assert same > 0.99 * len(left), "but for a blinking cursor"


def test_a_command_typed_on_a_screen_of_text(textual: Guest, look: Callable[[str], Stream]) -> None:
    """Without a graphics card the screen is the serial line."""
    screen, serial = look("rfb"), look("vt100")
    width, height, name = handshake(screen, "003.003")
    assert name == "looked at"
    log_in(serial)
    for symbol in (*b"echo $((50+5))", 0xFF0D):
        screen.send(struct.pack(">B?xxI", 4, True, symbol) + struct.pack(">B?xxI", 4, False, symbol))
    serial.until(b"55\r\n")
    assert len(set(picture(screen, width, height))) > 1
    serial.send(b"exit\n")
    serial.until(b"login: ")


def test_viewers_of_every_kind_who_do_not_read(
    host: InProcessHost, textual: Guest, look: Callable[[str], Stream]
) -> None:
    """The guest does not wait for them: not even nearly as long as a viewer may take nothing."""
    guest = textual
    awake = look("vt100")
    log_in(awake)

    def seconds() -> float:
        begun = time.monotonic()
        awake.send(b"yes 0123456789abcdef | head -n 60000; echo do''ne\n")
        awake.until(b"done")
        return time.monotonic() - begun

    alone = seconds()
    handle = login(host.url).handle
    serial = next(ref for ref in guest.api.VM.get_consoles(guest.vm) if guest.api.console.get_protocol(ref) == "vt100")
    asleep = [look("vt100"), look("rfb"), web_socket(tls(host.url), f"ref={serial}&session_id={handle}")[2]]
    handshake(asleep[1], "003.008")
    asleep[1].send(struct.pack(">BBHHHH", 3, 0, 0, 0, 640, 384) * 500)
    watched = seconds()
    assert watched < alone + ConsoleLimits().stall / 2
    awake.send(b"exit\n")
    awake.until(b"login: ")
    asleep[2].close()


def test_viewings_end_with_the_guest(look: Callable[[str], Stream], guest: Guest) -> None:
    streams = look("rfb"), look("vt100")
    guest.api.VM.hard_shutdown(guest.vm)
    for stream in streams:
        stream.rest()
