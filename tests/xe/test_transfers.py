"""Files between client and host: which are touched, where they go, and what is said when that fails."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domzero.engine.calls import LOCAL
from domzero.front.routes import RawStream, Request, Response
from domzero.xe.api import answer
from tests.api.harness import PASSWORD, InProcessHost, in_process
from tests.xe.terminal import HELLO, ROOT, port_of, printed, process, raw, socket_of

CONTENT = bytes(range(256)) * 4096


class Pages:
    """Pages that keep what they get, and end their task as they are told."""

    def __init__(self, host: InProcessHost) -> None:
        self.got = b""
        self.status = "success"
        self.seen = ""
        self._dispatcher = host.daemon.server._hub.dispatcher

    async def send(self, request: Request) -> Response:
        self.seen = request.head.path
        await self._end(request, [])
        return Response(body=CONTENT)

    async def stream(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield CONTENT

        await self._end(request, [])
        return Response(body=pieces())

    async def elsewhere(self, request: Request) -> Response:
        return Response(302, headers=(("location", f"/pool/xmldbdump?{request.head.query}"),))

    async def take(self, request: Request, stream: RawStream) -> None:
        length = request.head.content_length
        self.got = await (stream.reader.read() if length is None else stream.reader.readexactly(length))
        stream.respond(200, length=0)
        await stream.writer.drain()
        # The client is done before the task is.
        await asyncio.sleep(0.05)
        await self._end(request, ["SR_FULL", "1", "2"])

    async def take_later(self, request: Request, stream: RawStream) -> None:
        """As XenServer's imports do: the answer comes before the body is read."""
        stream.respond(200)
        await stream.writer.drain()
        await asyncio.sleep(0.02)
        length = request.head.content_length
        self.got = await (stream.reader.read() if length is None else stream.reader.readexactly(length))
        await self._end(request, [])

    async def refuse(self, request: Request, stream: RawStream) -> None:
        stream.respond(403, length=0)

    async def _end(self, request: Request, error: list[str]) -> None:
        arguments = request.head.arguments()
        session, task = arguments["session_id"], arguments["task_id"]
        if self.status == "failure":
            await answer(self._dispatcher, "task.set_error_info", [session, task, error], LOCAL)
        await answer(self._dispatcher, "task.set_status", [session, task, self.status], LOCAL)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(host: InProcessHost) -> Pages:
    """Our pages, in place of the host's own where it has them."""
    made = Pages(host)
    routes = host.daemon.server.routes
    ours = ("/pool/xmldbdump", "/host_backup", "/host_restore", "/host_logs_download", "/pool_patch_upload")
    for method in ("GET", "PUT"):
        routes.rows[method] = [row for row in routes.rows.get(method, []) if row.prefix not in ours]
    routes.page("GET", "/pool/xmldbdump", made.send)
    routes.raw("PUT", "/pool/xmldbdump", made.take)
    routes.page("GET", "/host_backup", made.stream)
    routes.raw("PUT", "/host_restore", made.refuse)
    routes.page("GET", "/host_logs_download", made.elsewhere)
    routes.raw("PUT", "/pool_patch_upload", made.take_later)
    return made


def xe(host: InProcessHost, *arguments: str) -> subprocess.CompletedProcess[str]:
    return process(*arguments, "-s", str(socket_of(host)))


def test_a_page_becomes_a_new_file(
    host: InProcessHost, pages: Pages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "a file"
    done = xe(host, "pool-dump-database", f"file-name={target}")
    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o600
    again = xe(host, "pool-dump-database", f"file-name={target}")
    assert again.returncode == 1
    assert "File exists" in again.stderr
    assert target.read_bytes() == CONTENT
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert printed(host, "task-list") == ""


def test_a_stream_without_a_length_goes_to_standard_output(host: InProcessHost, pages: Pages) -> None:
    command = [sys.executable, "-m", "domzero.client.xe", "host-backup", "file-name=", "-s", str(socket_of(host))]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT / "src"), "HOME": "/"}, capture_output=True, check=True)
    assert done.stdout == CONTENT * 3


def test_another_place_is_gone_to(host: InProcessHost, pages: Pages, tmp_path: Path) -> None:
    done = xe(host, "host-logs-download", f"file-name={tmp_path}/logs")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs").read_bytes() == CONTENT


def test_logs_go_to_a_file_named_after_host_and_moment(host: InProcessHost, pages: Pages, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "domzero.client.xe", "host-logs-download", "-s", str(socket_of(host))],
        env={"PYTHONPATH": str(ROOT / "src"), "HOME": "/"}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", path.name)
    assert path.read_bytes() == CONTENT


def test_names_and_arguments_of_bytes_that_are_no_text(
    host: InProcessHost, pages: Pages, machine: str, tmp_path: Path
) -> None:
    target = f"{tmp_path}/\udcff\x01"
    done = xe(host, "pool-dump-database", f"file-name={target}")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(target).read_bytes() == CONTENT
    disk = printed(host, "vbd-list", f"vm-uuid={machine}", "type=Disk", "params=vdi-uuid", "--minimal").strip()
    for command in (
        ("vdi-export", f"uuid={disk}", "format=\udcff"),
        ("vm-export", f"uuid={machine}", "excluded-device-types=\udcff"),
    ):
        done = xe(host, *command, f"filename={tmp_path}/out")
        assert done.returncode == 1
        assert "in a way that it should not" not in done.stderr


def test_a_file_is_sent(host: InProcessHost, pages: Pages, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(CONTENT)
    done = xe(host, "pool-restore-database", f"file-name={tmp_path}/in")
    assert (done.returncode, done.stderr) == (0, "")
    assert pages.got == CONTENT


@pytest.mark.parametrize("tls", [False, True])
def test_a_host_may_answer_before_it_reads(host: InProcessHost, pages: Pages, tmp_path: Path, tls: bool) -> None:
    (tmp_path / "in").write_bytes(CONTENT * 8)
    where = ("-s", "127.0.0.1", "-p", str(port_of(host)), "-pw", PASSWORD) if tls else ("-s", str(socket_of(host)))
    pages.got = b""
    done = process("patch-upload", f"file-name={tmp_path}/in", *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert pages.got == CONTENT * 8
    done = process("patch-upload", "file-name=", *where, typed="typed in\n" * 100_000)
    assert (done.returncode, done.stderr) == (0, "")
    assert pages.got == b"typed in\n" * 100_000
    done = process("pool-restore-database", f"file-name={tmp_path}/in", *where)
    assert (done.returncode, done.stderr) == (0, "")


def test_standard_input_is_sent_without_a_length(host: InProcessHost, pages: Pages) -> None:
    done = process("pool-restore-database", "file-name=", "-s", str(socket_of(host)), typed="typed in\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert pages.got == b"typed in\n"


def test_what_the_task_failed_with_is_told(host: InProcessHost, pages: Pages, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(CONTENT)
    pages.status = "failure"
    try:
        done = xe(host, "pool-restore-database", f"file-name={tmp_path}/in")
    finally:
        pages.status = "success"
    assert done.returncode == 1
    assert "requested: 1" in done.stderr.lower()
    assert printed(host, "task-list") == ""


def test_a_file_that_is_not_there(host: InProcessHost, pages: Pages) -> None:
    done = xe(host, "pool-restore-database", "file-name=/nowhere/at/all")
    assert done.returncode == 1
    assert "No such file" in done.stderr
    assert "Error: The file /nowhere/at/all was not transferred" in done.stderr
    assert printed(host, "task-list") == ""


def test_a_page_that_refuses(host: InProcessHost, pages: Pages, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(CONTENT)
    done = xe(host, "host-restore", f"file-name={tmp_path}/in")
    assert done.returncode == 1
    assert "HTTP status 403" in done.stderr


def test_commands_without_their_page_do_not_exist(host: InProcessHost, pages: Pages) -> None:
    assert ("vm-export" in printed(host, "help", "--all")) == host.daemon.server.routes.has("GET", "/export")


def message(kind: int, tag: int, *texts: str) -> bytes:
    parts = [text.encode("utf-8", "surrogateescape") for text in texts]
    payload = struct.pack("<ii", kind, tag) + b"".join(struct.pack("<i", len(part)) + part for part in parts)
    return struct.pack("<i", len(payload)) + payload


@contextmanager
def evil_host(path: Path, conversation: Callable[[socket.socket], None]) -> Iterator[None]:
    """A host that does what no host should."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(HELLO)
                data = b""
                while HELLO not in data:
                    data += connection.recv(4096)
                conversation(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("tag", [1, 12, 13])
def test_a_host_gets_no_file_that_the_command_line_does_not_name(tmp_path: Path, tag: int) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    answers: list[bytes] = []

    def conversation(connection: socket.socket) -> None:
        connection.sendall(message(9, tag, *([str(secret)] if tag == 1 else [str(secret), "/page"])))
        answers.append(connection.recv(4096))
        connection.sendall(struct.pack("<iiii", 12, 9, 4, 0))

    with evil_host(tmp_path / "socket", conversation):
        done = process("vm-list", f"name-label={tmp_path}", "-s", str(tmp_path / "socket"))
    assert done.returncode == 0
    assert "which the command line does not name" in done.stderr
    assert answers == [struct.pack("<iii", 8, 10, 6)]
    assert secret.read_text() == "mine"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("vm-list", "logs-2026-01-31T12:00:00Z"),
        ("host-logs-download", "../logs-2026-01-31T12:00:00Z"),
        ("host-logs-download", ".profile-2026-01-31T12:00:00Z"),
        ("host-logs-download", "2026-01-31T12:00:00Z"),
        ("host-logs-download", "secret"),
    ],
)
def test_a_host_names_files_for_logs_alone(tmp_path: Path, command: str, name: str) -> None:
    def conversation(connection: socket.socket) -> None:
        connection.sendall(message(9, 12, name, "/page"))
        connection.recv(4096)
        connection.sendall(struct.pack("<iiii", 12, 9, 4, 0))

    with evil_host(tmp_path / "socket", conversation):
        done = process(command, "-s", str(tmp_path / "socket"))
    assert "which the command line does not name" in done.stderr


@pytest.mark.parametrize("address", ["https://here:99999/", "/\udcff"])
def test_an_address_that_is_none(tmp_path: Path, address: str) -> None:
    answers: list[bytes] = []

    def conversation(connection: socket.socket) -> None:
        connection.sendall(message(9, 12, f"{tmp_path}/out", address))
        answers.append(connection.recv(4096))
        connection.sendall(struct.pack("<iiii", 12, 9, 4, 1))

    with evil_host(tmp_path / "socket", conversation):
        done = process("host-backup", f"file-name={tmp_path}/out", "-s", str(tmp_path / "socket"))
    assert (done.returncode, answers) == (1, [struct.pack("<iii", 8, 10, 6)])
    assert "Traceback" not in done.stderr


def test_a_file_that_is_named_is_loaded(tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.write_bytes(b"x" * 300_000)
    got = bytearray()

    def conversation(connection: socket.socket) -> None:
        connection.sendall(message(9, 1, str(named)))
        while not got.endswith(struct.pack("<iii", 8, 11, 8)):
            got.extend(connection.recv(1 << 16))
        connection.sendall(struct.pack("<iiii", 12, 9, 4, 7))

    with evil_host(tmp_path / "socket", conversation):
        done = process("x", f"filename={named}", "-s", str(tmp_path / "socket"))
    assert (done.returncode, done.stderr) == (7, "")
    assert got.count(b"x") == 300_000


@pytest.mark.parametrize("rubbish", [b"", b"\xff" * 64, message(10, 5), struct.pack("<iii", 8, 9, 77)])
def test_a_host_that_makes_no_sense_is_left(tmp_path: Path, rubbish: bytes) -> None:
    with evil_host(tmp_path / "socket", lambda connection: connection.sendall(rubbish)):
        done = process("vm-list", "-s", str(tmp_path / "socket"))
    assert done.returncode == 1
    assert done.stderr.startswith("The host did not answer as expected")


@pytest.mark.parametrize(("name", "last"), [("pool-dump-database", b"] 100 %"), ("host-backup", b"\r3 MiB")])
def test_progress_is_shown_on_a_terminal_only(
    host: InProcessHost, pages: Pages, tmp_path: Path, name: str, last: bytes
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "domzero.client.xe", name, f"file-name={tmp_path}/out"]
    environment = {"PYTHONPATH": str(ROOT / "src"), "HOME": "/"}
    with subprocess.Popen([*command, "-s", str(socket_of(host))], stderr=theirs, env=environment) as running:
        assert running.wait(30) == 0
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 0)[0]:
        try:
            shown += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    assert shown.rstrip(b"\r\n").endswith(last)


def test_a_text_console(host: InProcessHost) -> None:
    machine = printed(host, "vm-install", "template=Tiny Linux", "new-name-label=talks").strip()
    said = raw(host, "console", f"uuid={machine}")
    assert said.err == "Error: The machine has no text console; only a running one has\n"
    printed(host, "vm-start", f"uuid={machine}")
    command = [sys.executable, "-m", "domzero.client.xe", "console", f"uuid={machine}", "-s", str(socket_of(host))]
    environment = {"PYTHONPATH": str(ROOT / "src"), "HOME": "/"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.read(1)
        running.stdin.write(b"\x1d")
        running.stdin.flush()
        assert running.wait(30) == 0
    printed(host, "vm-uninstall", f"uuid={machine}", "--force")
