"""`/console`: the screen or serial line of a running machine, by `CONNECT` for programs, by WebSocket for browsers."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from domzero.engine.audit import Auditor, StreamCall
from domzero.engine.calls import Origin
from domzero.engine.changes import Change
from domzero.engine.errors import ApiError
from domzero.front.access import Access, Caller, require
from domzero.front.pages import HTML
from domzero.front.relay import End, relay
from domzero.front.routes import RawStream, Request, Routes
from domzero.front.viewers import SocketViewer, StreamViewer, Viewer
from domzero.wire.http import HttpError, RequestHead, error_page
from domzero.wire.websocket import is_upgrade

log = logging.getLogger(__name__)

PATH = "/console"
ROLE = "vm-operator"
CONTROL_DOMAIN_ROLE = "pool-admin"
SERIAL = "vt100"


class Place(Protocol):
    """A console that was found; see `toolstack.vm.console_places`."""

    @property
    def console(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def socket(self) -> Path | None: ...
    @property
    def log(self) -> Path | None: ...
    @property
    def is_control_domain(self) -> bool: ...
    @property
    def title(self) -> str | None: ...


class Places(Protocol):
    """Where consoles are."""

    async def find(self, name: str) -> Place:
        """Raises `ApiError`."""
        ...


class Line(Protocol):
    """A console as one viewer has it; see `host.console.lines`."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Lines(Protocol):
    """How consoles are reached."""

    async def screen(self, socket: Path) -> Line: ...
    async def serial(self, socket: Path, log: Path | None) -> Line: ...
    async def text(self, socket: Path, log: Path | None, title: str) -> Line: ...
    async def host(self, title: str | None) -> Line: ...


LOOKING = StreamCall(f"CONNECT {PATH}", "console")
"""What the audit calls a viewing, which one may type in, too."""


@dataclass(frozen=True, slots=True)
class ConsoleLimits:
    """What viewers may use up. Times are in seconds."""

    per_console: int = 16
    """Viewers of one console at once."""
    total: int = 512
    idle: float = 3600.0
    """Without a byte in either direction."""
    stall: float = 60.0
    """For which a viewer (or a machine, of what is typed) may take nothing."""


@dataclass(eq=False, slots=True)
class Viewing:
    """Somebody who looks at a console."""

    console: str
    caller: Caller
    rank: int
    revoked: asyncio.Event = field(default_factory=asyncio.Event)


class Consoles:
    """The handlers, and who is looking.

    `subscribe` has a function called with the changes of every commit: a viewing ends with its session, with the role
    that permitted it, and with its console. `auditor` is told who looks, and who may not.
    """

    def __init__(
        self, access: Access, places: Places, lines: Lines, *, auditor: Auditor,
        subscribe: Callable[[Callable[[Sequence[Change]], None]], None], limits: ConsoleLimits | None = None,
    ) -> None:  # fmt: skip
        self.limits = limits or ConsoleLimits()
        self.viewings: set[Viewing] = set()
        self._access = access
        self._places = places
        self._lines = lines
        self._auditor = auditor
        self._closed = False
        subscribe(self._follow)

    def add_to(self, routes: Routes) -> None:
        """Serve them under `PATH`."""
        routes.raw("CONNECT", PATH, self._connect)
        routes.raw("GET", PATH, self._upgrade)

    def close(self) -> None:
        """Send all viewers away and take no more."""
        self._closed = True
        for viewing in self.viewings:
            viewing.revoked.set()

    def viewers(self, console: str) -> int:
        """How many look at a console."""
        return Counter(viewing.console for viewing in self.viewings)[console]

    async def _connect(self, request: Request, stream: RawStream) -> None:
        def answer() -> Viewer:
            stream.writer.write(_CONNECTED)
            return StreamViewer(stream)

        await self._serve(request, stream, answer)

    async def _upgrade(self, request: Request, stream: RawStream) -> None:
        if not is_upgrade(request.head):
            headers = (("upgrade", "websocket"),)
            _refuse(stream, HttpError(426, "Consoles are reached by WebSocket or by CONNECT.", headers))
            return
        await self._serve(request, stream, lambda: SocketViewer(stream, request.head))

    async def _serve(self, request: Request, stream: RawStream, answer: Callable[[], Viewer]) -> None:
        viewer: Viewer | None = None
        try:
            name = console_name(request.head)
            async with self._access.caller(request, "console") as caller:
                place = await self.admitted(name, caller, request.origin, LOOKING)
                async with self._line(place, caller) as (viewing, line):
                    viewer = answer()
                    await self._view(viewing, line, viewer)
        except HttpError as error:
            _refuse(stream, error)
        finally:
            if viewer is not None:
                await viewer.close()

    async def admitted(self, name: str, caller: Caller, origin: Origin, call: StreamCall) -> Place:
        """The console that a caller may look at; the audit is told, as of `call`. Raises `HttpError` 403 or 404."""
        try:
            place = await self._find(name, caller)
        except HttpError as error:
            if error.status == 403:
                deed = self._auditor.begin(call, caller.session, origin, (name,))
                deed.failed(ApiError("RBAC_PERMISSION_DENIED", call.name, error.text))
            raise
        self._auditor.begin(call, caller.session, origin, (place.console,)).done("")
        return place

    async def _find(self, name: str, caller: Caller) -> Place:
        require(caller, self._access.rank(ROLE))
        try:
            place = await self._places.find(name)
        except ApiError as error:
            raise HttpError(404, f"There is no such console here: {', '.join(error.description)}") from None
        require(caller, self._rank(place))
        return place

    def _rank(self, place: Place) -> int:
        return self._access.rank(CONTROL_DOMAIN_ROLE if place.is_control_domain else ROLE)

    @asynccontextmanager
    async def _line(self, place: Place, caller: Caller) -> AsyncIterator[tuple[Viewing, Line]]:
        """A place at the console, counted. Raises `HttpError` 404 or 503."""
        limits = self.limits
        full = len(self.viewings) >= limits.total or self.viewers(place.console) >= limits.per_console
        if full or self._closed:
            raise HttpError(503, "There are too many viewers.")
        viewing = Viewing(place.console, caller, self._rank(place))
        self.viewings.add(viewing)
        try:
            line = await self.open(place)
            try:
                yield viewing, line
            finally:
                line.close()
        finally:
            self.viewings.discard(viewing)

    async def open(self, place: Place) -> Line:
        """Connect with a console. Raises `HttpError` 404."""
        if place.socket is None and not place.is_control_domain:
            raise HttpError(404, "The machine's hypervisor serves no consoles.")
        try:
            if place.socket is None:
                return await self._lines.host(place.title)
            if place.protocol == SERIAL:
                return await self._lines.serial(place.socket, place.log)
            if place.title is not None:
                return await self._lines.text(place.socket, place.log, place.title)
            return await self._lines.screen(place.socket)
        except (OSError, TimeoutError) as error:
            raise HttpError(404, "The machine's console does not answer; it may have just ended.") from error

    async def _view(self, viewing: Viewing, line: Line, viewer: Viewer) -> None:
        who = "root" if viewing.caller.session is None else viewing.caller.session.account.name
        log.info("%s looks at %s", who, viewing.console)
        end: End | None = None
        try:
            end = await relay(viewer, line, viewing.revoked, idle=self.limits.idle, stall=self.limits.stall)
        finally:
            log.info("%s looks at %s no more: %s", who, viewing.console, "it was cut off" if end is None else end.value)

    def _follow(self, changes: Sequence[Change]) -> None:
        """Whoever lost the session, the role or the console is sent away. Sessions have followed the changes before."""
        if not self.viewings:
            return
        gone = {change.row.ref for change in changes if change.row.class_name == "console" and change.after is None}
        relevant = any(change.row.class_name in ("session", "subject") for change in changes)
        for viewing in self.viewings if gone or relevant else ():
            if viewing.console in gone or not viewing.caller.is_in or viewing.caller.rank < viewing.rank:
                viewing.revoked.set()


_CONNECTED = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"


def console_name(head: RequestHead) -> str:
    """The reference or uuid in the query. Raises `HttpError` 400 without one."""
    arguments = head.arguments()
    name = arguments.get("ref") or arguments.get("uuid")
    if not name:
        raise HttpError(400, "The query must name a console or a machine, by ref or by uuid.")
    return name


def _refuse(stream: RawStream, error: HttpError) -> None:
    page = error_page(error.status, error.text)
    stream.respond(error.status, (*error.headers, HTML), length=len(page))
    stream.writer.write(page)
