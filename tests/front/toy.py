"""A toy model of three classes, a dispatcher over it, and a server with all kinds of doors, for the front's tests."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import xmlrpc.client
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domzero.engine.calls import Answer, Origin
from domzero.engine.errors import ApiError
from domzero.front.server import Server
from domzero.idl.graph import Graph
from domzero.idl.model import RUNTIME, RW, Class, Enum, Field, Role
from domzero.idl.records import Layout, Record
from domzero.idl.types import (
    BOOL,
    DATETIME,
    EVENT_BATCH,
    FLOAT,
    INT,
    STRING,
    STRING_MAP,
    STRING_SET,
    VOID,
    EnumOf,
    MapOf,
    OptionOf,
    RecordOf,
    RefTo,
    SetOf,
)

BOX = Class(
    "box",
    "Something to put things in.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio", "Its identity."),
        Field("name_label", STRING, RW, "rio", "Its name."),
        Field("size", INT, RW, "rio", "How much it holds."),
        Field("open", BOOL, RW, "rio", "Whether it is open."),
        Field("weight", FLOAT, RW, "rio", "In kilograms."),
        Field("made", DATETIME, RUNTIME, "rio", "When."),
        Field("colour", EnumOf("colour"), RW, "rio", "What it looks like."),
        Field("lid", RefTo("lid"), RW, "rio", "What closes it."),
        Field("tags", STRING_SET, RW, "rio", "Words about it."),
        Field("other_config", STRING_MAP, RW, "rio", "Whatever."),
        Field("load", MapOf(INT, FLOAT), RUNTIME, "rio", "Per compartment."),
    ),
    enums=(Enum("colour", "A colour.", {"red": "Red.", "blue": "Blue."}),),
)
LID = Class("lid", "Closes a box.", "rio", fields=(Field("uuid", STRING, RUNTIME, "rio", "Its identity."),))
NOTE = Class(
    "note",
    "A struct that is not stored.",
    "rio",
    fields=(
        Field("text", STRING, RUNTIME, "rio", "What it says."),
        Field("about", OptionOf(RecordOf("lid")), RUNTIME, "rio", "What it is about."),
    ),
    has_getters=False,
    has_get_all=False,
)
GRAPH = Graph([BOX, LID, NOTE], [], [Role("read-only", 0, "r", "All may."), Role("pool-admin", 5, "p", "Root may.")])
BOX_LAYOUT = Layout(BOX)


def box(number: int = 1, **changes: Any) -> Record:
    """A box with telling values."""
    values = {
        "uuid": f"00000000-0000-0000-0000-{number:012}",
        "name_label": f"box <{number}> & co",
        "size": 2**40 + number,
        "open": True,
        "weight": 0.1,
        "made": "20080301T12:00:00Z",
        "colour": "red",
        "lid": "OpaqueRef:NULL",
        "tags": ("a", "b<c"),
        "other_config": {"k<ey": "v&alue"},
        "load": {0: 0.5, 1: 1e-9},
    } | changes
    return Record(BOX_LAYOUT, tuple(values[name] for name in BOX_LAYOUT.names))


Outcome = Answer | Awaitable[Answer]


@dataclass
class Toy:
    """A dispatcher with a handful of methods. `waiting` is set while `toy.wait` waits for `release`."""

    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[tuple[str, list[Any], Origin]] = field(default_factory=list)
    finished: int = 0

    def call(self, method: str, params: Sequence[Any], origin: Origin) -> Outcome:
        self.calls.append((method, list(params), origin))
        known: dict[str, Callable[..., Outcome]] = {
            "toy.echo": lambda text="": Answer(STRING, text),
            "toy.add": lambda *numbers: Answer(INT, sum(map(int, numbers))),
            "toy.void": lambda: Answer(VOID, None),
            "toy.boxes": lambda count: Answer(
                MapOf(RefTo("box"), RecordOf("box")), {f"OpaqueRef:{n}": box(n) for n in range(int(count))}
            ),
            "toy.big": lambda size: Answer(STRING, "x" * int(size)),
            "toy.who": lambda: Answer(STRING, "local" if origin.local else origin.address),
            "toy.events": lambda: Answer(EVENT_BATCH, event_batch()),
            "toy.wait": self._wait,
            "toy.work": lambda: asyncio.get_running_loop().create_task(self._wait()),
            "toy.crash": self._crash,
            "toy.wrong": lambda: Answer(INT, "no number"),
            "system.listMethods": lambda: Answer(SetOf(STRING), ("toy.echo", "toy.add"), bare=True),
        }
        if method not in known:
            raise ApiError("MESSAGE_METHOD_UNKNOWN", method)
        return known[method](*params)

    async def _wait(self) -> Answer:
        self.waiting.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.finished += 1
        return Answer(STRING, "waited")

    def _crash(self) -> Answer:
        raise ZeroDivisionError("a defect")


def event_batch() -> dict[str, Any]:
    """A batch with an addition and a deletion."""
    common = {"timestamp": "20080301T12:00:00Z", "class": "box"}
    return {
        "events": [
            {"id": 1, "operation": "add", "ref": "OpaqueRef:1", "obj_uuid": "u", "snapshot": box(1), **common},
            {"id": 2, "operation": "del", "ref": "OpaqueRef:2", "snapshot": None, **common},
        ],
        "valid_ref_counts": {"box": 1},
        "token": "00000000000000000002,00000000000000000000",
    }


@dataclass
class Doors:
    """A running server and how to reach it."""

    server: Server
    toy: Toy
    https: int
    http: int
    unix: Path

    async def plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.http)

    async def tls(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.https, ssl=client_context())

    async def local(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.unix))

    async def proxy_call(self, door: str, method: str, *params: Any) -> Any:
        """One call through the standard library's XML-RPC client, in a thread."""
        return await asyncio.to_thread(self._proxy_call, door, method, params)

    def _proxy_call(self, door: str, method: str, params: tuple[Any, ...]) -> Any:
        with self._proxy(door) as proxy:
            return getattr(proxy, method)(*params)

    def _proxy(self, door: str) -> xmlrpc.client.ServerProxy:
        if door == "https":
            return xmlrpc.client.ServerProxy(f"https://127.0.0.1:{self.https}", context=client_context())
        if door == "http":
            return xmlrpc.client.ServerProxy(f"http://127.0.0.1:{self.http}")
        return xmlrpc.client.ServerProxy("http://localhost", transport=UnixTransport(self.unix))


class UnixTransport(xmlrpc.client.Transport):
    """The standard library's XML-RPC transport over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        path = self._path

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.connect(str(path))

        if self._connection[1] is None:
            self._connection = host, Connection("localhost")
        connection = self._connection[1]
        assert connection is not None
        return connection


def client_context() -> ssl.SSLContext:
    """Accepts any certificate, as XenServer's clients do unless told otherwise."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def request(method: str, *params: Any, path: str = "/", headers: str = "", version: str = "1.1") -> bytes:
    """An XML-RPC request as bytes."""
    body = xmlrpc.client.dumps(params, method).encode()
    return http_request("POST", path, body, headers, version)


def http_request(method: str, path: str, body: bytes, headers: str = "", version: str = "1.1") -> bytes:
    """A request with a length."""
    head = f"{method} {path} HTTP/{version}\r\nHost: toy\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


async def read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"])) if "content-length" in headers else b""
    return int(head[0].split()[1]), headers, body


def value_of(body: bytes) -> Any:
    """The Value of a successful XML-RPC answer."""
    ((answer,), _) = xmlrpc.client.loads(body)
    assert isinstance(answer, dict)
    assert answer["Status"] == "Success", answer
    return answer["Value"]


async def ask(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], method: str, *params: Any) -> Any:
    """One call over an open connection."""
    reader, writer = streams
    writer.write(request(method, *params))
    status, _, body = await read_response(reader)
    assert status == 200
    return value_of(body)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something has come true, for half a minute at most."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")
