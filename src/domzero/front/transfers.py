"""Serves the pages of `engine.exchange`: who asks is let in, a task follows the work, and the outcome is told.

The task is the one that the query (or a cookie) names as `task_id`, which must be pending, else one of the request's
own. It ends as the work ends, also when the client was not let in: whoever waits for it is always told. The task of
another account is left alone, as by the messages of the task class. The status line of an answer says nothing of an
upload's success, which is often decided long after it was sent; the task does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from domzero.engine.audit import AuditedPage
from domzero.engine.calls import Origin
from domzero.engine.context import Contexts
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Headers, Page, PageFunction, PeerGoneError, RequestError
from domzero.engine.sessions import Session
from domzero.engine.task_handle import TaskHandle
from domzero.engine.task_messages import TASKS_OF_OTHERS
from domzero.engine.tasks import Tasks
from domzero.front.access import Access, Caller, is_anonymous, require
from domzero.front.pages import HTML
from domzero.front.routes import RawStream, Request, Routes
from domzero.wire.http import HttpError, RequestHead, error_page

log = logging.getLogger(__name__)

STALL = 300.0
"""Seconds for which a peer may send nothing that was asked for, or read nothing of what was sent."""
WRITE_AHEAD = 1 << 20
"""Bytes that are on their way out before the work waits for the peer."""
BLOCK = 256 << 10
"""Bytes that are handed to the transport at once."""
PIECE = 1 << 20
"""The most bytes of a body that are read at once."""
GOODBYE = 2.0
"""Seconds for which input is still read after an answer that came before the request's end, lest a reset eats it."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

TASK_ARGUMENTS = frozenset({"task_id", "subtask_of"})
"""What makes a request part of a task, which is not for strangers to say."""

REFUSALS = {401: "SESSION_AUTHENTICATION_FAILED", 403: "RBAC_PERMISSION_DENIED"}
"""What a task fails with whose request is not let in."""
STATUS = {
    "HANDLE_INVALID": 404, "UUID_INVALID": 404, "CANNOT_FIND_PATCH": 404, "RBAC_PERMISSION_DENIED": 403,
    "SESSION_INVALID": 401, "SR_OPERATION_NOT_SUPPORTED": 400,
}  # fmt: skip
"""Error → status of the answer where the head was not sent yet; 500 for all others, as XenServer does."""

Result = TypeVar("Result")


@dataclass(slots=True)
class StreamPeer:
    """`engine.exchange.Peer` on a connection that was handed over."""

    head: RequestHead
    stream: RawStream
    stall: float = STALL
    begun: bool = False
    _taken: int = field(default=0, init=False)
    _buffer: memoryview = field(default=memoryview(b""), init=False)
    _continued: bool = field(default=False, init=False)

    @property
    def length(self) -> int | None:
        return self.head.content_length

    @property
    def chunked(self) -> bool:
        return self.head.chunked

    def header(self, name: str) -> str | None:
        return self.head.header(name)

    def begin(self, status: int = 200, headers: Headers = (), length: int | None = None) -> None:
        if self.begun:
            raise RuntimeError("the head of the answer was sent before")
        if status == 200 and self.header("expect") is not None:
            self._continue()
        self.begun = True
        self.stream.respond(status, headers, length)

    async def read(self, limit: int = PIECE) -> bytes:
        if not self._buffer:
            self._buffer = memoryview(bytearray(PIECE))
        return bytes(self._buffer[: await self.read_into(self._buffer[:limit])])

    async def read_into(self, buffer: memoryview) -> int:
        if self.length is not None:
            buffer = buffer[: self.length - self._taken]
        if not buffer:
            return 0
        if not self.begun and self.header("expect") is not None:
            self._continue()
        count = await self._patiently(self.stream.receive(buffer))
        self._taken += count
        if not count and self.length is not None:
            raise PeerGoneError(f"the body ended after {self._taken} of {self.length} bytes")
        return count

    def _continue(self) -> None:
        if not self._continued:
            self._continued = True
            self.stream.writer.write(CONTINUE)

    async def read_exactly(self, size: int) -> bytes:
        if self.length is not None and size > self.length - self._taken:
            raise PeerGoneError(f"the body of {self.length} bytes ends too soon")
        pieces, missing = [], size
        while missing:
            piece = await self.read(missing)
            if not piece:
                raise PeerGoneError(f"the body ended after {self._taken} bytes")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        for start in range(0, len(view), BLOCK):
            self.stream.writer.write(view[start : start + BLOCK])
            await self._patiently(self.stream.writer.drain())
            # A peer that keeps up makes nobody wait: others need their turn, and its leaving must be noticed.
            await asyncio.sleep(0)

    async def _patiently(self, waiting: Awaitable[Result]) -> Result:
        try:
            # Not `wait_for`: it loses a cancellation that comes together with what is waited for.
            async with asyncio.timeout(self.stall):
                return await waiting
        except TimeoutError:
            raise PeerGoneError(f"nothing moved for {self.stall:g} seconds") from None
        except ConnectionError as error:
            raise PeerGoneError(str(error) or "the connection was cut") from error


class Transfers:
    """Serves pages. `tasks` and `contexts` are the engine's."""

    def __init__(self, access: Access, tasks: Tasks, contexts: Contexts, *, stall: float = STALL) -> None:
        self._access = access
        self._rank_for_others = access.rank(TASKS_OF_OTHERS)
        self._tasks = tasks
        self._contexts = contexts
        self._stall = stall

    def add_to(self, routes: Routes, pages: Iterable[tuple[Page, PageFunction]]) -> None:
        """Serve them. Raises `KeyError` for a role that does not exist, `ValueError` for a page that is there twice."""
        for page, function in pages:
            rank = self._access.rank(page.role)
            routes.raw(page.method, page.path, self._handler(page, rank, function))

    def _handler(self, page: Page, rank: int, function: PageFunction) -> Callable[[Request, RawStream], Any]:
        async def serve(request: Request, stream: RawStream) -> None:
            stream.writer.transport.set_write_buffer_limits(WRITE_AHEAD)
            peer = StreamPeer(request.head, stream, self._stall)
            try:
                await self._serve(page, rank, function, request, peer)
            except HttpError as error:
                if not peer.begun:
                    await _refuse(peer, error)
            except ConnectionError:
                raise
            except Exception:
                # A defect. Whoever asked is told as much, and the log has all of it.
                if not peer.begun:
                    await _refuse(peer, HttpError(500, "The page failed unexpectedly; the log says more."))
                raise

        return serve

    async def _serve(self, page: Page, rank: int, function: PageFunction, request: Request, peer: StreamPeer) -> None:
        pairs = request.head.argument_pairs()
        arguments = Arguments({**request.head.cookies(), **dict(pairs)}, pairs)
        if page.public is not None and is_anonymous(request) and page.public(arguments):
            unbound = Arguments({name: value for name, value in arguments.items() if name not in TASK_ARGUMENTS})
            await self._carry_out(page, function, None, request.origin, peer, unbound)
            return
        named = arguments.get("task_id")
        try:
            async with self._access.caller(request, page.label) as caller:
                foreign = self._concerns_others(caller, arguments)
                if (foreign or caller.rank < rank) and isinstance(function, AuditedPage):
                    function.denied(caller.session, request.origin, arguments)
                if foreign:
                    named = None
                    raise HttpError(403, "The task belongs to another account.")
                require(caller, rank)
                await self._carry_out(page, function, caller.session, request.origin, peer, arguments)
        except HttpError as error:
            if error.status in REFUSALS:
                told = (page.label, error.text) if error.status == 403 else ()
                self._refuse_task(named, (REFUSALS[error.status], *told))
            raise

    async def _carry_out(
        self, page: Page, function: PageFunction, session: Session | None, origin: Origin, peer: StreamPeer,
        arguments: Arguments,
    ) -> None:  # fmt: skip
        outcome: list[HttpError] = []
        try:
            handle = self._task(page, session, arguments)
            context = self._contexts.of_call(page.label, session, origin, handle)
            work = _explained(lambda: function(context, peer, arguments), outcome)
            if page.task or handle.stored:
                await self._tasks.carry_out(handle, work, page.result)
            else:
                await self._tasks.call(handle, work)
        except ApiError as error:
            log.info("%s: %s", page.label, ", ".join(error.description))
            text = f"{error.code}({', '.join(error.params)})"
            raise outcome[0] if outcome else HttpError(STATUS.get(error.code, 500), text) from None

    def _task(self, page: Page, session: Session | None, arguments: Arguments) -> TaskHandle:
        """The request's task. Raises `ApiError` for one that cannot be had."""
        if named := arguments.get("task_id"):
            return self._tasks.adopt(named, session)
        handle = self._tasks.handle(page.label, session)
        if parent := arguments.get("subtask_of"):
            handle.parent = self._contexts.database.row("task", parent).ref
        return handle

    def _concerns_others(self, caller: Caller, arguments: Arguments) -> bool:
        """Whether a request names a task that its caller has no business with."""
        session = caller.session
        if session is None or caller.rank >= self._rank_for_others:
            return False
        refs = (arguments.get(name, "") for name in TASK_ARGUMENTS)
        return any(self._tasks.is_of_another(ref, session) for ref in refs)

    def _refuse_task(self, named: str | None, error: tuple[str, ...]) -> None:
        """Tell whoever waits for the task that its work will not be done, and why."""
        if named is not None and self._tasks.is_waiting(named):
            self._tasks.finish(named, "failure", error_info=error)


async def _explained(work: Callable[[], Awaitable[Any]], outcome: list[HttpError]) -> Any:
    """Do the work, its failures as the `ApiError` that its task shows; `outcome` keeps what fits the page better.

    Anything else is a defect and passes.
    """
    try:
        return await work()
    except RequestError as error:
        outcome.append(HttpError(error.status, error.text))
        raise ApiError("INTERNAL_ERROR", error.text) from error
    except PeerGoneError as error:
        outcome.append(HttpError(400, str(error)))
        raise ApiError("INTERNAL_ERROR", f"The client went away: {error}") from error


async def _refuse(peer: StreamPeer, error: HttpError) -> None:
    """Send an error page, and listen a little longer: a client that is still sending would else lose it."""
    page = error_page(error.status, error.text)
    peer.begin(error.status, (*error.headers, HTML), length=len(page))
    writer = peer.stream.writer
    writer.write(page)
    try:
        async with asyncio.timeout(GOODBYE):
            await writer.drain()
            if peer.length != 0 and peer.head.method in ("PUT", "POST"):
                if writer.can_write_eof():
                    writer.write_eof()
                ignored = memoryview(bytearray(BLOCK))
                while await peer.stream.receive(ignored):
                    pass
    except (ConnectionError, TimeoutError) as problem:
        log.debug("%s was not there any more to be told: %s", peer.head.path, problem)
