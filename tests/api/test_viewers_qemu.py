"""A real Linux, once with a graphics card and once without one, through viewers that nobody here wrote."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.api.guest import Guest, make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login
from tests.api.programs import (
    difference,
    needs_curl,
    needs_tiger,
    opened,
    snapshot,
    tiger,
    vncdo,
    wait_until_shown,
    x_server,
)
from tests.api.tunnel import tunnel
from tests.host.children import arguments, children

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300), needs_curl]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("qemu"), hypervisor="qemu", accel="tcg", network="user") as host:
        yield host


@pytest.fixture(scope="module", params=["card", "text"])
def guest(request: pytest.FixtureRequest, host: InProcessHost) -> Iterator[Guest]:
    api = login(host.url).xenapi
    guest = make_machine(host, api, request.param)
    if request.param == "card":
        api.VM.set_platform(guest.vm, {"vga": "std"})
    api.VM.start(guest.vm, False, False)
    # Whoever asks for a name at a terminal drops what was typed before.
    guest.wait_for(lambda log: b"login: " in log, "the login")
    yield guest
    remove_machine(api, guest.vm)


def test_typed_and_seen_with_vncdotool(host: InProcessHost, guest: Guest, tmp_path: Path) -> None:
    """What the scripted viewer types, the guest carries out; what it captures is what the host photographs."""
    handle = login(host.url).handle
    with tunnel(host.url, f"ref={guest.vm}&session_id={handle}") as port:
        word = f"seen-{guest.api.VM.get_name_label(guest.vm)}"
        vncdo(port, "key", "enter", "pause", "1", "type", "root", "key", "enter", "pause", "2",
              "type", f"echo {word} >/dev/ttyS0", "key", "enter", "pause", "2",
              "capture", str(tmp_path / "seen.png"))  # fmt: skip
    guest.wait_for(lambda log: f"\n{word}".encode() in log, "the command")
    expected = snapshot(host.url, f"ref={guest.vm}", tmp_path / "screen.png")
    assert difference(opened(tmp_path / "seen.png"), expected) < 0.01
    assert expected.getbbox() is not None, "the screen is black"


@needs_tiger
def test_seen_with_tigervnc(host: InProcessHost, guest: Guest, tmp_path: Path) -> None:
    handle = login(host.url).handle

    def expected() -> Image.Image:
        return snapshot(host.url, f"ref={guest.vm}", tmp_path / "screen.png")

    with (
        x_server(tmp_path) as environment,
        tunnel(host.url, f"ref={guest.vm}&session_id={handle}") as port,
        tiger(port, environment),
    ):
        wait_until_shown(expected, environment, tmp_path / "shot.png")


def test_nothing_listens_for_viewers_but_the_host(host: InProcessHost, guest: Guest) -> None:
    """Of this process and those that it started: QEMU's own servers are Unix sockets in a directory of its own."""
    handle = login(host.url).handle
    with tunnel(host.url, f"ref={guest.vm}&session_id={handle}") as port:
        listening = {line.split()[9]: line.split()[1] for name in ("tcp", "tcp6") for line in listeners(name)}
        ours = [str(pid) for pid in children() if any(b"qemu-system" in word for word in arguments(pid))]
        assert ours, "no QEMU of this host was found"
        assert [address for pid in ours for inode in sockets(pid) if (address := listening.get(inode))] == []
        mine = {int(address.rpartition(":")[2], 16) for inode in sockets("self") if (address := listening.get(inode))}
        assert mine == {port, int(host.url.rpartition(":")[2])}


def listeners(name: str) -> list[str]:
    """The lines of proc(5)'s table that are about sockets in the state LISTEN."""
    return [line for line in (Path("/proc/net") / name).read_text().splitlines()[1:] if line.split()[3] == "0A"]


def sockets(pid: str) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    for entry in (Path("/proc") / pid / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if (target := os.readlink(entry)).startswith("socket:["):
                found.add(target[8:-1])
    return found
