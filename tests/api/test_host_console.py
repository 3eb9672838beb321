"""The console of the host itself: the control domain's, which only a pool-admin may look at."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from domzero.hands import make_host_console
from domzero.settings import Settings
from tests.api.harness import InProcessHost, in_process, login
from tests.api.viewer import Stream, connect, handshake, picture, request, tls


@pytest.fixture
def door(host: InProcessHost) -> Iterator[Callable[[], Any]]:
    connections: list[Any] = []

    def opened() -> Any:
        connections.append(tls(host.url))
        return connections[-1]

    yield opened
    for connection in connections:
        connection.close()


def control_domain(api: Any) -> str:
    return str(api.host.get_control_domain(api.host.get_all()[0]))


def consoles(api: Any) -> dict[str, str]:
    return {api.console.get_protocol(ref): ref for ref in api.VM.get_consoles(control_domain(api))}


def test_the_control_domain_has_a_screen_and_a_text_console(api: Any, session: Any, door: Any) -> None:
    found = consoles(api)
    assert sorted(found) == ["rfb", "vt100"]
    for ref in found.values():
        assert api.console.get_location(ref).endswith(f"/console?ref={ref}")
    _, _, text = connect(door(), f"ref={found['vt100']}&session_id={session.handle}")
    text.until(b"simulated host\r\n")
    text.send(b"hello\r")
    text.until(b"hello\r\n")
    _, _, screen = connect(door(), f"ref={control_domain(api)}&session_id={session.handle}")
    width, height, name = handshake(screen, "003.003")
    assert name == api.VM.get_name_label(control_domain(api))
    assert len(set(picture(screen, width, height))) > 1


def test_a_picture_of_it(api: Any, session: Any, door: Any) -> None:
    line = f"GET /vncsnapshot?ref={control_domain(api)}&session_id={session.handle} HTTP/1.0"
    status, _, stream = request(door(), line, "Accept: image/png")
    assert status == 200
    with Image.open(BytesIO(stream.rest())) as image:
        assert image.size == (640, 384)
        # What the terminal was told first stands on its first line, and nothing on its last.
        assert image.convert("L").crop((0, 0, 640, 16)).getextrema()[1] > 100  # type: ignore[operator] # of one band
        assert image.convert("L").crop((0, 368, 640, 384)).getextrema()[1] == 0


def test_viewers_do_not_see_each_other(api: Any, session: Any, door: Any) -> None:
    query = f"ref={consoles(api)['vt100']}&session_id={session.handle}"
    one, other = connect(door(), query)[2], connect(door(), query)[2]
    for stream in (one, other):
        stream.until(b"simulated host\r\n")
    one.send(b"mine\r")
    one.until(b"mine\r\n")
    other.send(b"other\r")
    assert other.until(b"other\r\n") == b"other\r\n"


@pytest.mark.parametrize("role", ["vm-operator", "vm-power-admin", "pool-operator"])
def test_lesser_roles_may_not_look(host: InProcessHost, api: Any, door: Any, role: str) -> None:
    host.run(host.daemon.engine.users.add(role, "a password", role))
    session = login(host.url, role, "a password")
    for ref in (*consoles(api).values(), control_domain(api)):
        assert connect(door(), f"ref={ref}&session_id={session.handle}")[0] == 403
    assert request(door(), f"GET /vncsnapshot?ref={control_domain(api)}&session_id={session.handle} HTTP/1.0")[0] == 403


def test_a_viewing_ends_with_the_role_of_a_pool_admin(host: InProcessHost, api: Any, door: Any) -> None:
    host.run(host.daemon.engine.users.add("admin", "a password", "pool-admin"))
    session = login(host.url, "admin", "a password")
    _, _, stream = connect(door(), f"ref={consoles(api)['vt100']}&session_id={session.handle}")
    stream.until(b"simulated host\r\n")
    host.run(host.daemon.engine.users.remove("admin"))
    assert stream.rest() == b""
    deadline = time.monotonic() + 10
    while host.daemon.consoles.viewings:
        assert time.monotonic() < deadline


def test_the_audit_tells_who_looked_and_who_might_not(host: InProcessHost, api: Any, session: Any, door: Any) -> None:
    found = consoles(api)["vt100"]
    _, _, stream = connect(door(), f"ref={found}&session_id={session.handle}")
    stream.until(b"simulated host\r\n")
    host.run(host.daemon.engine.users.add("curious", "a password", "vm-admin"))
    curious = login(host.url, "curious", "a password")
    assert connect(door(), f"ref={found}&session_id={curious.handle}")[0] == 403
    _, _, stream = request(door(), f"GET /audit_log?session_id={session.handle} HTTP/1.0")
    lines = [json.loads(line) for line in stream.rest().splitlines()]
    looked = [line for line in lines if line["call"] == "CONNECT /console"]
    console = [{"class": "console", "uuid": api.console.get_uuid(found)}]
    assert [(line["who"], line["result"], line["objects"]) for line in looked[-2:]] == [
        ("root", "success", console),
        ("curious", "RBAC_PERMISSION_DENIED", console),
    ]


def test_a_setting_takes_it_away_and_gives_it_back(tmp_path: Path) -> None:
    for shown, count in ((None, 2), (False, 0), (True, 2)):
        with in_process(tmp_path, host_console=shown) as host:
            session = login(host.url)
            api = session.xenapi
            assert len(api.VM.get_consoles(control_domain(api))) == len(api.console.get_all()) == count
            with tls(host.url) as connection:
                status, _, _ = connect(connection, f"ref={control_domain(api)}&session_id={session.handle}")
            assert status == (200 if count else 404)


def test_without_a_screen_where_the_control_domain_says_so(tmp_path: Path) -> None:
    with in_process(tmp_path) as host:
        api = login(host.url).xenapi
        api.VM.add_to_other_config(control_domain(api), "disable_pv_vnc", "1")
    with in_process(tmp_path) as host:
        assert list(consoles(login(host.url).xenapi)) == ["vt100"]


def test_a_real_host_shows_none_unless_root_says_so() -> None:
    assert make_host_console(Settings({}), root=True) is None
    assert make_host_console(Settings({"host_console": False}), root=True) is None
    assert make_host_console(Settings({"host_console": True}), root=False) is None
    assert make_host_console(Settings({"host_console": True}), root=True) is not None


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("login") is None, reason="needs root and login(1)")
def test_a_login_of_this_machine(tmp_path: Path) -> None:
    with in_process(tmp_path, hypervisor="qemu", accel="tcg", network="user", host_console=True) as host:
        session = login(host.url)
        api = session.xenapi
        found = consoles(api)
        with tls(host.url) as connection:
            stream: Stream = connect(connection, f"ref={found['vt100']}&session_id={session.handle}")[2]
            stream.until(b"login: ")
            stream.send(b"nobody-of-that-name\r")
            stream.until(b"assword: ")
        with tls(host.url) as connection:
            screen = connect(connection, f"ref={found['rfb']}&session_id={session.handle}")[2]
            assert len(set(picture(screen, *handshake(screen, "003.008")[:2]))) > 1
        assert len(host.daemon.consoles.viewings) <= 2
