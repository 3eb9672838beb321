"""`domzero serve` as a process: what it says when it starts, what keeps it from starting, and where it listens."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.api.harness import login, password_file
from tests.sampling import each
from tests.service.daemons import SIMULATED, Daemon, command, daemon, service_manager

SAID = re.compile(
    r"domzero: root's password is (?P<password>\S{20,}) \(shown once\)\n"
    r"domzero: certificate SHA-256 (?P<fingerprint>[0-9A-F]{2}(:[0-9A-F]{2}){31})\n"
    r"domzero: ready (?P<url>https://127\.0\.0\.1:\d+)\n"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon at its first start, which a test may look at but not end."""
    with daemon(tmp_path_factory.mktemp("running"), "--log-level", "debug") as started:
        started.start()
        yield started


def sentence(arguments: tuple[str | Path, ...], code: int, **environment: str) -> str:
    """Why it does not start: one line on standard error, and nothing else anywhere."""
    ended = command("serve", *arguments, **environment)
    assert ended.returncode == code, ended.stderr
    assert "ready" not in ended.stdout
    assert "Traceback" not in ended.stderr
    told = [line for line in ended.stderr.splitlines() if line.startswith("domzero: ")]
    assert len(told) == 1, ended.stderr
    return told[0].removeprefix("domzero: ")


# The first start


@pytest.mark.slow
def test_the_first_start_shows_a_password_that_is_right(running: Daemon) -> None:
    said = SAID.fullmatch(running.said)
    assert said, running.said
    assert login(said["url"], "root", said["password"]).xenapi.host.get_all()
    assert said["password"] not in running.log
    assert said["password"] not in running.complained


@pytest.mark.slow
def test_the_certificate_is_the_one_whose_fingerprint_was_shown(running: Daemon) -> None:
    said = SAID.fullmatch(running.said)
    assert said
    host, port = said["url"].removeprefix("https://").split(":")
    certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))
    assert hashlib.sha256(certificate).hexdigest().upper() == said["fingerprint"].replace(":", "")


@pytest.mark.slow
def test_others_may_look_at_nothing(running: Daemon) -> None:
    said = SAID.fullmatch(running.said)
    assert said
    assert stat.S_IMODE(running.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(running.socket.stat().st_mode) == 0o600
    files = [path for path in running.state.rglob("*") if path.is_file()]
    assert [path for path in files if said["password"].encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_second_daemon_is_refused(running: Daemon) -> None:
    said = sentence((*SIMULATED, "--state-dir", running.state), 1)
    assert said == f"The database {running.state}/state.db is in use by another process."
    assert login(running.url, "root", SAID.fullmatch(running.said)["password"]).xenapi.VM.get_all()  # type: ignore[index]


@pytest.mark.slow
def test_a_port_in_use_is_refused(running: Daemon, tmp_path: Path) -> None:
    port = running.url.rpartition(":")[2]
    said = sentence(("--hypervisor", "sim", "--https", f"127.0.0.1:{port}", "--state-dir", tmp_path), 1)
    assert said.startswith(f"cannot listen on 127.0.0.1 port {port}: Address already in use")
    assert said in (tmp_path / "log/domzero.log").read_text()


@pytest.mark.slow
def test_a_socket_in_use_is_refused(running: Daemon, tmp_path: Path) -> None:
    said = sentence((*SIMULATED, "--state-dir", tmp_path, "--socket", running.socket), 1)
    assert said == f"cannot listen on {running.socket}: another server is using it"
    assert running.socket.exists()


@pytest.mark.slow
def test_debug_is_what_was_asked_for(running: Daemon) -> None:
    assert " DEBUG " in running.log
    assert set(running.complained.splitlines()) <= set(running.log.splitlines())


# Starting again


@pytest.mark.slow
def test_starting_again(tmp_path: Path) -> None:
    """The service manager is told; the password is not shown again; the log says no more than was asked for."""
    manager = tmp_path / "notify"
    with (
        service_manager(manager) as told,
        daemon(tmp_path, "--log-level", "error", NOTIFY_SOCKET=str(manager)) as again,
    ):
        first = again.start()
        password = SAID.fullmatch(again.said)["password"]  # type: ignore[index]
        certificate = again.said.splitlines()[1]
        assert told.recv(100) == b"READY=1"
        assert again.stop() == 0
        assert told.recv(100) == b"STOPPING=1"
        assert not again.socket.exists()
        again.start()
        assert again.said.splitlines() == [certificate, f"domzero: ready {again.url}"]
        assert told.recv(100) == b"READY=1"
        assert login(again.url, "root", password).xenapi.host.get_all()
        assert (again.log, again.complained) == ("", "")
        assert first.startswith("https://127.0.0.1:")


@pytest.mark.slow
def test_a_full_log_is_turned_over(tmp_path: Path) -> None:
    old = b"2026-01-01 00:00:00,000 INFO domzero: long ago\n" * ((8 << 20) // 47 + 1)
    (tmp_path / "state/log").mkdir(parents=True)
    (tmp_path / "state/log/domzero.log").write_bytes(old)
    with daemon(tmp_path, "--log-level", "debug") as started:
        started.start()
        assert (tmp_path / "state/log/domzero.log.1").read_bytes() == old
        assert 0 < len(started.log) < 1 << 20


# Settings


@pytest.mark.slow
def test_file_environment_and_command_line(tmp_path: Path) -> None:
    """Each setting from where it counts first."""
    (tmp_path / "domzero.toml").write_text(
        f'hypervisor = "qemu"\nhttps = "nowhere:1"\nroot-password-file = "{password_file(tmp_path)}"\n'
    )
    with daemon(tmp_path, DOMZERO_HTTPS="[::1]:0") as started:
        started.arguments = ("--hypervisor", "sim", "--config", str(tmp_path / "domzero.toml"))
        assert started.start().startswith("https://[::1]:")
        assert login(started.url).xenapi.host.get_all()
        assert "password is" not in started.said


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    each(
        5,
        [
            (("--https", "nowhere"), {}, "--https: 'nowhere' is not an address and a port, such as 127.0.0.1:8443"),
            (("--https", "127.0.0.1:99999"), {}, "--https: '127.0.0.1:99999' is not an address and a port"),
            (("--state-dir", ""), {}, "--state-dir: '' is not a path"),
            (("--hypervisor", "xen"), {}, "--hypervisor: 'xen' is not one of qemu, sim"),
            ((), {"DOMZERO_LOG_LEVEL": "loud"}, "DOMZERO_LOG_LEVEL: 'loud' is not one of"),
            (("--config", "/nowhere/domzero.toml"), {}, "/nowhere/domzero.toml: No such file or directory"),
            (("--config", "/"), {}, "/: Is a directory"),
        ],
    ),
)
def test_settings_that_cannot_be_understood(arguments: tuple[str, ...], environment: dict[str, str], said: str) -> None:
    assert sentence(arguments, 2, **environment).startswith(said)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["--state-dir", "--runtime-dir"])
def test_directories_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    said = sentence((*SIMULATED, "--state-dir", tmp_path / "state", place, tmp_path / "file" / "below"), 1)
    assert said.startswith(f"{tmp_path}/file/below cannot be made: Not a directory.")


@pytest.mark.slow
def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "log/domzero.log").mkdir(parents=True)
    said = sentence((*SIMULATED, "--state-dir", tmp_path), 1)
    assert said.startswith(f"{tmp_path}/log/domzero.log cannot be written: Is a directory.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\n", "has no password in its first line"),
        (b"\xff\n", "is no text"),
        (b"x" * 1025, "a password has between 1 and 1024 characters"),
    ],
)
def test_unfit_password_files(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    assert said in sentence((*SIMULATED, "--state-dir", tmp_path / "state", "--root-password-file", file), 1)


@pytest.mark.slow
def test_a_password_is_shown_though_the_start_fails(tmp_path: Path) -> None:
    """It is kept, so the next start would not tell it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = command("serve", "--hypervisor", "sim", "--https", place, "--state-dir", tmp_path / "state")
    shown = re.fullmatch(r"domzero: root's password is (\S+) \(shown once\)\n", ended.stdout)
    assert ended.returncode == 1
    assert shown, ended.stdout
    with daemon(tmp_path) as again:
        assert login(again.start(), "root", shown[1]).xenapi.host.get_all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "shown"),
    [("localhost:0", "https://localhost:"), ("[::1]:0", "https://[::1]:"), ("127.0.0.1:0", "https://127.0.0.1:")],
)
def test_names_and_addresses_to_listen_on(tmp_path: Path, place: str, shown: str) -> None:
    with daemon(tmp_path, *("--root-password-file", str(password_file(tmp_path)))) as started:
        started.arguments = (*started.arguments, "--https", place)
        assert started.start().startswith(shown)
        assert login(started.url).xenapi.host.get_all()


@pytest.mark.slow
def test_a_damaged_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"this was written by somebody else" * 400)
    said = sentence((*SIMULATED, "--state-dir", tmp_path), 1)
    assert said.startswith(f"The database {tmp_path}/state.db is damaged")
    assert (tmp_path / "state.db").read_bytes().startswith(b"this was")


# Ports


@pytest.mark.slow
def test_a_relative_state_directory_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with daemon(Path(), "--root-password-file", password_file(tmp_path).name) as started:
        api = login(started.start()).xenapi
        unplugged = [pbd for pbd, record in api.PBD.get_all_records().items() if not record["currently_attached"]]
        assert unplugged == []
        assert "WARNING" not in started.log


OCCUPIED = """
import os, socket, sys
ports = map(int, sys.argv[1].split())
taken = [socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in ports]
for listening in taken:
    listening.set_inheritable(True)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize(
    ("before", "port"),
    [
        ((), 443),
        ((sys.executable, "-c", OCCUPIED, "443"), 8443),
        (("setpriv", "--bounding-set", "-net_bind_service"), 8443),
    ],
    ids=["free", "taken", "not allowed"],
)
def test_the_default_port(tmp_path: Path, before: tuple[str, ...], port: int) -> None:
    """443 where it is free and allowed, else 8443; in a network of its own."""
    with daemon(tmp_path, before=("unshare", "--net", *before)) as started:
        started.arguments = ("--hypervisor", "sim")
        where = urlsplit(started.start())
        assert (where.hostname, where.port or 443) == ("127.0.0.1", port)


@pytest.mark.slow
@pytest.mark.root
def test_no_default_port_is_free(tmp_path: Path) -> None:
    prefix = ("unshare", "--net", sys.executable, "-c", OCCUPIED, "443 8443")
    ended = command("serve", "--hypervisor", "sim", "--state-dir", tmp_path, before=prefix)
    assert ended.returncode == 1
    assert "domzero: cannot listen on * port 8443: Address already in use" in ended.stderr


def settled_port() -> int:
    """A port that is free, and that the kernel gives to nobody who asks for any (proc(5), ip_local_port_range)."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(first_given - 1, 1024, -1):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("every port below those that the kernel gives is taken")


@pytest.mark.slow
def test_both_ports_say_where_they_are(tmp_path: Path) -> None:
    port = settled_port()
    with daemon(
        tmp_path, "--http", f"127.0.0.1:{port}", "--root-password-file", str(password_file(tmp_path))
    ) as started:
        started.start()
        assert login(f"http://127.0.0.1:{port}").xenapi.host.get_all()
