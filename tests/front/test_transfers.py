"""Pages that are no calls, asked for by `curl` and by bare connections: who may, and what their tasks tell."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from domzero.engine.calls import LOCAL
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Page, PageFunction, Peer, RequestError, collect_pages, serves
from domzero.front.access import Access, guarded_like_calls
from domzero.front.certificates import Certificate, tls_context
from domzero.front.routes import Request
from domzero.front.server import Server
from domzero.front.transfers import Transfers
from domzero.idl.types import STRING, SetOf
from domzero.wire.http import HttpError, parse_head
from tests.engine.toy_calls import PASSWORD, Toy, make_toy
from tests.front.toy import GRAPH as FRONT_GRAPH
from tests.front.toy import Toy as Calls

SIZE = 3_000_000
CONTENT = hashlib.shake_256(b"content").digest(SIZE)


@serves("GET", "/down", role="vm-operator", label="Toy download", result=STRING)
async def down(context: Context, peer: Peer, arguments: Arguments) -> str:
    if arguments.flag("broken"):
        raise ApiError("INVALID_VALUE", "broken", "true")
    peer.begin(200, (("content-type", "application/octet-stream"),))
    for start in [*range(0, SIZE, 1 << 20)] * int(arguments.get("times", "1")):
        await peer.write(CONTENT[start : start + (1 << 20)])
        context.task.set_progress(start / SIZE)
    if arguments.flag("late"):
        raise ApiError("INVALID_VALUE", "late", "true")
    return "down"


@serves("PUT", "/up", role="vm-admin", label="Toy upload", result=SetOf(STRING))
async def up(context: Context, peer: Peer, arguments: Arguments) -> tuple[str, ...]:
    if peer.chunked:
        raise RequestError(403, "Chunks are not read here.")
    if arguments.flag("early", default=True):
        peer.begin()
    digest = hashlib.sha256()
    while data := await peer.read():
        digest.update(data)
    return (digest.hexdigest(),)


@serves("GET", "/quick", role="read-only", label="Toy look", task=False)
async def quick(context: Context, peer: Peer, arguments: Arguments) -> None:
    body = arguments.need("name", "other").encode()
    peer.begin(200, length=len(body))
    await peer.write(body)


@serves("PUT", "/broken", role="read-only", label="Toy defect")
async def broken(context: Context, peer: Peer, arguments: Arguments) -> None:
    raise ZeroDivisionError("a defect")


@serves("GET", "/crooked", role="read-only", label="Toy defect without a task", task=False)
async def crooked(context: Context, peer: Peer, arguments: Arguments) -> None:
    raise ZeroDivisionError("a defect")


@serves("GET", "/wait", role="read-only", label="Toy wait")
async def wait(context: Context, peer: Peer, arguments: Arguments) -> None:
    with context.task.cancellable():
        await asyncio.Event().wait()


def test_a_guard_that_follows_the_one_of_calls() -> None:
    booting, restoring = object(), object()
    present: list[object | None] = [booting]
    guard = guarded_like_calls(lambda: present[0], booting)

    def refused(method: str) -> int:
        try:
            guard(Request(parse_head(f"{method} /page HTTP/1.1\r\nhost: x\r\n\r\n".encode()), LOCAL))
        except HttpError as error:
            return error.status
        return 0

    methods = ("GET", "PUT", "POST", "CONNECT")
    assert [refused(method) for method in methods] == [503, 503, 503, 503]
    present[0] = restoring
    assert [refused(method) for method in methods] == [0, 503, 503, 0]
    present[0] = None
    assert [refused(method) for method in methods] == [0, 0, 0, 0]


@dataclass
class House:
    """A server with the pages above."""

    toy: Toy
    https: int
    http: int
    unix: Path

    def task(self, **changes: object) -> str:
        return self.toy.engine.tasks.store("of the client", "", None)

    async def done(self, ref: str) -> tuple[str, str, tuple[str, ...]]:
        """How a task ended."""
        await self.toy.until(lambda: self.toy.task(ref)["status"] not in ("pending", "cancelling"))
        record = self.toy.task(ref)
        return record["status"], record["result"], record["error_info"]

    async def curl(self, *words: str | Path) -> tuple[int, bytes]:
        """What `curl` says of the status, and the body."""
        process = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--insecure", "--max-time", "20", "--write-out", "%{stderr}%{http_code}", *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        body, status = await process.communicate()
        return int(status), body

    def url(self, path: str, door: str = "https") -> str:
        return f"{door}://127.0.0.1:{self.https if door == 'https' else self.http}{path}"


def pages() -> list[tuple[Page, PageFunction]]:
    import tests.front.test_transfers as here

    return collect_pages(here)


@asynccontextmanager
async def housed(tmp_path: Path, certificate: Certificate, stall: float) -> AsyncIterator[House]:
    """For as long as the block lasts; peers may stall for that many seconds."""
    toy = await make_toy(tmp_path)
    engine = toy.engine
    server = Server(Calls(), FRONT_GRAPH)
    access = Access(engine.sessions, engine.door, engine.roles, engine.clock)
    Transfers(access, engine.tasks, engine.contexts, stall=stall).add_to(server.routes, pages())
    server.listen_unix(tmp_path / "socket")
    https = server.listen_https("127.0.0.1", 0, tls_context(certificate))
    yield House(toy, https, server.listen_http("127.0.0.1", 0), tmp_path / "socket")
    await server.stop(grace=0)
    await toy.stop()


@pytest.fixture
async def house(tmp_path: Path, certificate: Certificate) -> AsyncIterator[House]:
    async with housed(tmp_path, certificate, 30.0) as house:
        yield house


@pytest.fixture
async def hurried(tmp_path: Path, certificate: Certificate) -> AsyncIterator[House]:
    """A house that is in a hurry: the machine itself may stall clients for longer than this."""
    async with housed(tmp_path, certificate, 1.0) as house:
        yield house


async def test_a_download_completes_the_task_it_is_asked_to(house: House) -> None:
    task, session = house.task(), await house.toy.root()
    status, body = await house.curl(house.url(f"/down?session_id={session}&task_id={task}"))
    assert (status, body) == (200, CONTENT)
    assert await house.done(task) == ("success", "<value>down</value>", ())


@pytest.mark.parametrize("how", ["cookie", "basic", "unix"])
async def test_all_ways_to_say_who_asks(house: House, how: str) -> None:
    session = await house.toy.root()
    ways: dict[str, list[str | Path]] = {
        "cookie": ["--cookie", f"session_id={session}"],
        "basic": ["--user", f"root:{PASSWORD}"],
        "unix": ["--unix-socket", house.unix],
    }
    url = "http://localhost/quick?name=it" if how == "unix" else house.url("/quick?name=it")
    assert await house.curl(url, *ways[how]) == (200, b"it")
    assert house.toy.database.refs("task") == ()


@pytest.mark.parametrize("early", ["true", "false"])
@pytest.mark.parametrize("door", ["https", "http"])
async def test_an_upload_by_curl_arrives_whole(house: House, tmp_path: Path, early: str, door: str) -> None:
    """Larger than what `curl` sends without being told to go on (Expect: 100-continue)."""
    (tmp_path / "content").write_bytes(CONTENT)
    session, task = await house.toy.root(), house.task()
    url = house.url(f"/up?session_id={session}&task_id={task}&early={early}", door)
    status, _ = await house.curl("--upload-file", tmp_path / "content", url)
    assert await house.done(task) == ("success", f'<value>["{hashlib.sha256(CONTENT).hexdigest()}"]</value>', ())
    if early == "true":
        assert status == 200


async def test_an_upload_without_a_length_ends_with_the_connection(house: House) -> None:
    session, task = await house.toy.root(), house.task()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.http)
    writer.write(f"PUT /up?session_id={session}&task_id={task} HTTP/1.0\r\n\r\n".encode() + CONTENT)
    await writer.drain()
    writer.write_eof()
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
    assert (await house.done(task))[0] == "success"


async def test_a_client_that_vanishes_fails_its_task(house: House) -> None:
    session, task = await house.toy.root(), house.task()
    _, writer = await asyncio.open_connection("127.0.0.1", house.http)
    writer.write(f"PUT /up?session_id={session}&task_id={task} HTTP/1.0\r\nContent-Length: 100\r\n\r\nabc".encode())
    await writer.drain()
    writer.transport.abort()
    status, _, error = await house.done(task)
    assert (status, error[0]) == ("failure", "INTERNAL_ERROR")
    assert "client" in error[1]


async def test_a_client_that_stalls_fails_its_task(hurried: House) -> None:
    session, task = await hurried.toy.root(), hurried.task()
    reader, writer = await asyncio.open_connection("127.0.0.1", hurried.http)
    writer.write(f"PUT /up?session_id={session}&task_id={task} HTTP/1.0\r\nContent-Length: 100\r\n\r\nabc".encode())
    assert (await hurried.done(task))[0] == "failure"
    await reader.read()
    writer.close()


async def test_a_reader_that_stalls_fails_its_task(hurried: House) -> None:
    session, task = await hurried.toy.root(), hurried.task()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", hurried.http))
    await loop.sock_sendall(
        connection, f"GET /down?times=20&session_id={session}&task_id={task} HTTP/1.0\r\n\r\n".encode()
    )
    status, _, error = await hurried.done(task)
    connection.close()
    assert (status, error[0]) == ("failure", "INTERNAL_ERROR")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/down?broken=true", 500, ("INVALID_VALUE", "broken", "true")),
        ("/down?broken=perhaps", 400, ("INTERNAL_ERROR", "broken is neither true nor false.")),
        ("/down?late=true", 200, ("INVALID_VALUE", "late", "true")),
        ("/quick?", 400, ("INTERNAL_ERROR", "The query lacks name or other.")),
    ],
)
async def test_failures_are_told_by_page_and_task(house: House, path: str, status: int, error: tuple[str, ...]) -> None:
    session, task = await house.toy.root(), house.task()
    given, _ = await house.curl(house.url(f"{path}&session_id={session}&task_id={task}"))
    assert given == status
    assert await house.done(task) == ("failure", "", error)


async def test_a_defect_is_told_without_its_innards(house: House, tmp_path: Path) -> None:
    session, task = await house.toy.root(), house.task()
    (tmp_path / "content").write_bytes(CONTENT)
    url = house.url(f"/broken?session_id={session}&task_id={task}", "http")
    status, body = await house.curl("--upload-file", tmp_path / "content", url)
    assert status == 500
    assert b"Traceback" not in body
    assert (await house.done(task))[2][0] == "INTERNAL_ERROR"


async def test_a_defect_is_told_without_a_task_too(house: House, caplog: pytest.LogCaptureFixture) -> None:
    status, body = await house.curl(house.url(f"/crooked?session_id={await house.toy.root()}"))
    assert (status, b"ZeroDivision" in body) == (500, False)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("known", [True, False])
async def test_whoever_is_not_let_in_fails_the_task(house: House, known: bool) -> None:
    session = own = await house.toy.session_of("read-only")
    task = await house.toy.call("task.create", own, "of the client", "")
    if not known:
        session = "OpaqueRef:none"
    status, _ = await house.curl(house.url(f"/down?session_id={session}&task_id={task}"))
    assert status == (403 if known else 401)
    denied = ("RBAC_PERMISSION_DENIED", "Toy download", "No role of this session permits it.")
    assert await house.done(task) == ("failure", "", denied if known else ("SESSION_AUTHENTICATION_FAILED",))


@pytest.mark.parametrize("path", ["/quick?name=x&task_id=", "/down?task_id=", "/quick?name=x&subtask_of="])
async def test_the_task_of_another_account_is_left_alone(house: House, path: str) -> None:
    """Everybody can see all tasks; to end one, by doing its work or by being refused it, takes the right to it."""
    reader, operator = await house.toy.session_of("read-only"), await house.toy.session_of("pool-operator")
    task = await house.toy.call("task.create", await house.toy.root(), "of root", "")
    before = house.toy.task(task)
    assert (await house.curl(house.url(f"{path}{task}&session_id={reader}")))[0] == 403
    assert house.toy.task(task) == before
    assert (await house.curl(house.url(f"{path}{task}&session_id={operator}")))[0] == 200
    assert house.toy.task(task) != before or "subtask_of" in path


async def test_a_parent_is_a_task(house: House) -> None:
    url = house.url(f"/down?session_id={await house.toy.root()}&subtask_of=")
    assert (await house.curl(url + "OpaqueRef:none"))[0] == 404
    parent = house.task()
    assert (await house.curl(url + parent))[0] == 200
    (child,) = house.toy.task(parent)["subtasks"]
    assert (await house.done(child))[0] == "success"


async def test_a_task_serves_but_once(house: House) -> None:
    session, task = await house.toy.root(), house.task()
    url = house.url(f"/down?session_id={session}&task_id={task}")
    assert (await house.curl(url))[0] == 200
    assert (await house.curl(url))[0] == 500
    assert (await house.done(task))[0] == "success"
    assert (await house.curl(house.url(f"/down?session_id={session}&task_id=OpaqueRef:none")))[0] == 404


async def test_a_request_may_be_part_of_a_task(house: House) -> None:
    session, parent = await house.toy.root(), house.task()
    asking = asyncio.ensure_future(house.curl(house.url(f"/wait?session_id={session}&subtask_of={parent}")))
    await house.toy.until(lambda: len(house.toy.database.refs("task")) == 2)
    (child,) = set(house.toy.database.refs("task")) - {parent}
    assert house.toy.task(child)["subtask_of"] == parent
    await house.toy.until(lambda: "cancel" in house.toy.task(child)["allowed_operations"])
    await house.toy.call("task.cancel", session, child)
    await asking
    assert house.toy.task(parent)["status"] == "pending"
    assert (await house.curl(house.url(f"/down?session_id={session}&subtask_of=OpaqueRef:none")))[0] == 404
    assert len(house.toy.database.refs("task")) == 2


async def test_a_task_can_be_cancelled(house: House) -> None:
    session, task = await house.toy.root(), house.task()
    asking = asyncio.ensure_future(house.curl(house.url(f"/wait?session_id={session}&task_id={task}")))
    await house.toy.until(lambda: "cancel" in house.toy.task(task)["allowed_operations"])
    await house.toy.call("task.cancel", session, task)
    assert await house.done(task) == ("cancelled", "", ("TASK_CANCELLED", task))
    assert (await asking)[0] == 500


async def test_chunks_are_refused_where_the_page_says_so(house: House, tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"x")
    credentials = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
    status, _ = await house.curl(
        "--upload-file", tmp_path / "content", "--header", "Transfer-Encoding: chunked",
        "--header", f"Authorization: Basic {credentials}", house.url("/up"),
    )  # fmt: skip
    assert status == 403
