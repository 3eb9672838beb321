"""Consoles of simulated machines through programs that nobody here wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.harness import InProcessHost, login
from tests.api.programs import difference, needs_curl, opened, snapshot, vncdo
from tests.api.tunnel import tunnel
from tests.api.viewer import connect, request, tls


@pytest.fixture
def bars(api: Any, machine: str) -> str:
    """A running machine whose card shows coloured bars."""
    api.VM.set_platform(machine, {"vga": "std"})
    api.VM.start(machine, False, False)
    return machine


@needs_curl
def test_curl_gets_a_picture(host: InProcessHost, bars: str, tmp_path: Path) -> None:
    image = snapshot(host.url, f"ref={bars}", tmp_path / "screen.png")
    assert image.size == (320, 200)
    colours = [image.getpixel((20 + 40 * bar, 100)) for bar in range(8)]
    assert colours[0] == (255, 255, 255)
    assert colours[5] == (255, 0, 0)
    assert colours[7] == (0, 0, 0)


def test_a_machine_without_a_screen(host: InProcessHost, api: Any, session: Any, machine: str) -> None:
    """With `disable_pv_vnc` a paravirtual machine has its text console alone, which then is the machine's console."""
    api.VM.add_to_other_config(machine, "disable_pv_vnc", "1")
    api.VM.start(machine, False, False)
    assert [api.console.get_protocol(ref) for ref in api.VM.get_consoles(machine)] == ["vt100"]
    with tls(host.url) as connection:
        status, _, stream = connect(connection, f"ref={machine}&session_id={session.handle}")
        assert status == 200
        stream.until(b"simulated machine")
    with tls(host.url) as connection:
        assert request(connection, f"GET /vncsnapshot?ref={machine}&session_id={session.handle} HTTP/1.0")[0] == 404
    # A card is one all the same, but what is refused is the screen: the key means paravirtual machines alone.
    api.VM.hard_shutdown(machine)
    api.VM.set_HVM_boot_policy(machine, "BIOS order")
    api.VM.start(machine, False, False)
    assert sorted(api.console.get_protocol(ref) for ref in api.VM.get_consoles(machine)) == ["rfb", "vt100"]


def test_the_audit_tells_who_took_a_picture(host: InProcessHost, api: Any, session: Any, bars: str) -> None:
    host.run(host.daemon.engine.users.add("curious", "a password", "read-only"))
    curious = login(host.url, "curious", "a password")
    screen = next(ref for ref in api.VM.get_consoles(bars) if api.console.get_protocol(ref) == "rfb")

    def asked(page: str, handle: str) -> tuple[int, bytes]:
        with tls(host.url) as connection:
            status, _, stream = request(connection, f"GET {page}session_id={handle} HTTP/1.0")
            return status, stream.rest()

    assert asked(f"/vncsnapshot?ref={screen}&", session.handle)[0] == 200
    assert asked(f"/vncsnapshot?ref={screen}&", curious.handle)[0] == 403
    lines = [json.loads(line) for line in asked("/audit_log?", session.handle)[1].splitlines()]
    looked = [line for line in lines if line["call"] == "GET /vncsnapshot"]
    console = [{"class": "console", "uuid": api.console.get_uuid(screen)}]
    assert [(line["who"], line["result"], line["objects"]) for line in looked[-2:]] == [
        ("root", "success", console),
        ("curious", "RBAC_PERMISSION_DENIED", console),
    ]


@pytest.mark.slow
def test_a_viewer_that_is_scripted(host: InProcessHost, session: Any, bars: str, tmp_path: Path) -> None:
    with tunnel(host.url, f"ref={bars}&session_id={session.handle}") as port:
        vncdo(port, "capture", str(tmp_path / "seen.png"))
    expected = snapshot(host.url, f"ref={bars}", tmp_path / "screen.png")
    assert difference(opened(tmp_path / "seen.png"), expected) == 0
