"""One connection: an asyncio protocol that reads requests, has them carried out in order, and writes the answers.

Cheap calls are answered within `data_received`, without a task. While a call waits, reading goes on (so that a client
that leaves is noticed) but nothing more is carried out. A peer that sends without reading its answers, or faster than
what it asks can be carried out, is not read from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from math import inf
from typing import Any

from domzero.engine.calls import Answer, Origin
from domzero.front import raw, rpc
from domzero.front.dispatching import awaited
from domzero.front.hub import SMALL_BODY, Door, Hub
from domzero.front.outbox import Outbox
from domzero.front.pages import HTML, serve_page
from domzero.front.planning import PREFLIGHT_HEADERS, RPC_HEADS, KnownHead, Plan, head_too_large, plan, start_error
from domzero.front.routes import Headers, Request
from domzero.front.states import BUSY, CLOSING, IDLE, LINGERING, READING, Phase, State
from domzero.wire.http import HEAD_END, HttpError, error_page, parse_head, response_head

log = logging.getLogger(__name__)

READ_AHEAD = 64 << 10
"""How much of the next requests is kept while one is being carried out."""
TURN = 32
"""How many pipelined requests are answered before other connections get their turn."""
LARGE = 64 << 10
"""An answer above this size is sent at once and not gathered with others, so that back-pressure can work."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """See the module. All methods run in the event loop; none blocks."""

    def __init__(self, hub: Hub, door: Door) -> None:
        self.hub = hub
        self.door = door
        self._state = READING
        self._phase = Phase.NEW
        self._transport: asyncio.Transport
        self._outbox: Outbox
        self._origin: Origin
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._plan: Plan | None = None
        self._known: KnownHead | None = None
        self._out: list[bytes] = []
        self._ended = False
        self._scheduled = False
        self._task: asyncio.Task[Any] | None = None
        self._idle_since = inf
        self._deadline = inf
        self._latest = inf

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._outbox = Outbox(transport)
        self._origin = self.door.origin(transport)
        self._idle_since = self.hub.clock()
        welcome = self.hub.make_room(self.door)
        self.hub.join(self)
        if welcome:
            self._deadline = self._idle_since + self.hub.limits.head_total
        elif self.hub.count(self.door) > self.door.limit + self.hub.limits.refusals:
            self.abort()
        else:
            self._refuse(HttpError(503, "There are too many connections."))
            self._flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._state = State.CLOSED
        self._buffer = b""
        self._outbox.lost()
        if self._task is not None:
            self._task.cancel()
        self.hub.leave(self)

    def data_received(self, data: bytes) -> None:
        if self._state is READING:
            known, idle = self._known, not self._buffer and self._plan is None and self._outbox.writable
            if known is not None and idle and len(data) == known.size and data.startswith(known.head):
                self._serve_call(known.plan, data[len(known.head) :])
                self._end_turn(True)
                return
            self._keep(data)
            if self._outbox.writable and not self._scheduled:
                self._work()
            else:
                self._pace()
        elif self._state is BUSY:
            self._keep(data)
            self._pace()

    def eof_received(self) -> bool:
        """A peer that closed only its sending side still gets the answer it waits for, if it comes soon."""
        self._ended = True
        if self._state is BUSY:
            self._deadline = self.hub.clock() + self.hub.limits.linger
        waits = self._state is BUSY or self._scheduled or not (self._outbox.empty and self._outbox.writable)
        return waits and not self.door.tls

    def pause_writing(self) -> None:
        self._outbox.paused(self.hub.clock())
        self._pace()

    def resume_writing(self) -> None:
        self._outbox.resumed()
        if self._state is READING and self._outbox.writable:
            self._work()

    # From the hub

    def idleness(self) -> tuple[bool, float] | None:
        if self._state is READING and self._phase in (Phase.NEW, IDLE):
            return self._phase is IDLE, self._idle_since
        return None

    def check_deadlines(self, now: float) -> None:
        if now >= self._outbox.stalled_since + self.hub.limits.write_stall:
            log.info("%s reads too slowly and is disconnected", self._origin.address)
            self.abort()
        elif now < self._deadline:
            return
        elif self._state is not READING:
            self.abort()
        elif self._phase in (Phase.HEAD, Phase.BODY):
            self._refuse(HttpError(408, "The request did not arrive in time."))
            self._flush()
        else:
            self._close()

    def drain(self) -> bool:
        if self.idleness() is not None:
            self._close()
        return self._state is CLOSING and self._outbox.empty

    def abort(self) -> None:
        self._transport.abort()

    # Reading

    def _keep(self, data: bytes) -> None:
        if not self._buffer:
            self._buffer = data
            return
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(self._buffer)
        self._buffer += data

    def _work(self) -> None:
        """Carry out the requests that are complete, until one has to wait."""
        left = TURN
        while self._state is READING and left and self._outbox.writable:
            plan = self._plan or self._next_plan()
            if plan is None:
                break
            if plan.route is not None and plan.route.raw is not None:
                self._hand_over(plan)
                return
            body = self._take(plan.length)
            if body is None:
                break
            self._plan = None
            left -= 1
            if plan.endpoint is not None:
                self._serve_call(plan, body)
            else:
                self._serve_page(plan, body)
            if self._at == len(self._buffer):
                break
        if self._at:
            self._buffer = self._buffer[self._at :]
            self._at = 0
        self._end_turn(left < TURN)
        if self._state is READING:
            if not left and self._buffer:
                self._scheduled = True
                self.hub.loop.call_soon(self._work_on)
            elif self._ended and self._outbox.writable:
                self._close()
        self._pace()

    def _pace(self) -> None:
        """Read on, but not from a peer that is ahead of what is carried out for it, nor from one that reads nothing."""
        ahead = (self._scheduled or self._state is BUSY) and len(self._buffer) > READ_AHEAD
        if ahead or (self._state is READING and not self._outbox.writable):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _end_turn(self, served: bool) -> None:
        self._flush()
        if self._state is READING:
            self._set_deadline(served)

    def _work_on(self) -> None:
        self._scheduled = False
        if self._state is READING and self._outbox.writable:
            self._work()

    def _next_plan(self) -> Plan | None:
        """The plan of the next head, or `None` when it is not complete or was refused."""
        end = self._buffer.find(HEAD_END, self._at)
        if end < 0:
            if (error := start_error(self._buffer[self._at :], self.hub.limits)) is not None:
                self._refuse(error)
            return None
        raw_head = bytes(self._buffer[self._at : end + 4])
        self._at = end + 4
        if self._known is not None and self._known.head == raw_head:
            self._plan = self._known.plan
            return self._plan
        try:
            if len(raw_head) > self.hub.limits.head_size:
                raise head_too_large(self.hub.limits)
            head = parse_head(raw_head.lstrip(b"\r\n"))
            self._plan = plan(head, self.hub.endpoints, self.hub.routes, self.hub.limits)
            self.hub.expect(self, self._plan.length)
        except HttpError as error:
            self._refuse(error)
            return None
        if self._plan.expects_continue:
            if len(self._buffer) - self._at < self._plan.length:
                self._out.append(CONTINUE)
        elif self._plan.length <= SMALL_BODY:
            self._known = KnownHead(raw_head, self._plan)
        return self._plan

    def _take(self, length: int) -> bytes | None:
        end = self._at + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[self._at : end])
        self._at = end
        self.hub.expect(self, 0)
        return body

    def _set_deadline(self, served: bool) -> None:
        """Start or go on with the time that the peer has for what it is sending."""
        now, limits = self.hub.clock(), self.hub.limits
        if not self._buffer and self._plan is None:
            if served:
                self._phase = IDLE
                self._idle_since = now
                self._deadline = now + limits.keep_alive
            return
        if self._plan is not None:
            phase, idle, total = Phase.BODY, limits.body_idle, limits.body_total
        else:
            phase, idle, total = Phase.HEAD, limits.head_idle, limits.head_total
        if served or phase is not self._phase:
            self._phase = phase
            self._latest = now + total
        self._deadline = min(now + idle, self._latest)

    # Carrying out

    def _serve_call(self, plan: Plan, body: bytes) -> None:
        endpoint = plan.endpoint
        assert endpoint is not None
        try:
            call = endpoint.decode(body)
        except HttpError as error:
            page = error_page(error.status, error.text)
            self._answer(plan, error.status, (*error.headers, HTML), page)
            return
        outcome: Answer | Awaitable[Answer] | Exception
        try:
            outcome = self.hub.dispatcher.call(call.method, call.params, self._origin)
        except Exception as error:  # noqa: BLE001 - becomes the call's answer; `encode` logs what is no ApiError
            outcome = error
        if isinstance(outcome, Answer) or isinstance(outcome, Exception):  # noqa: SIM101 - a union is made anew each time
            self._answer_call(plan, endpoint, endpoint.encode(call, outcome))
        else:
            self._wait(plan, endpoint, call, outcome)

    def _wait(self, plan: Plan, endpoint: rpc.Endpoint[Any], call: rpc.Call, waiting: Awaitable[Answer]) -> None:
        """Wait for an outcome. Only a task made here is cancelled with the connection; see `Dispatcher`."""
        self._enter(BUSY)
        if isinstance(waiting, asyncio.Future):
            future = waiting
        else:
            future = self._task = self.hub.start(awaited(waiting))
        future.add_done_callback(partial(self._finished, plan, endpoint, call))

    def _finished(
        self, plan: Plan, endpoint: rpc.Endpoint[Any], call: rpc.Call, future: asyncio.Future[Answer]
    ) -> None:
        cancelled = asyncio.CancelledError("the call was cancelled") if future.cancelled() else None
        outcome: rpc.Outcome = cancelled or future.exception() or future.result()
        if self._state is BUSY:
            self._answer_call(plan, endpoint, endpoint.encode(call, outcome))
            self._resume()

    def _serve_page(self, plan: Plan, body: bytes) -> None:
        if plan.route is None or plan.route.page is None:
            self._answer(plan, 200, PREFLIGHT_HEADERS, b"")
            return
        self._enter(BUSY)
        self._flush()
        request = Request(plan.head, self._origin, body)
        self._task = self.hub.start(serve_page(plan.route.page, request, self._outbox, self._keeps_alive(plan)))
        self._task.add_done_callback(self._page_done)

    def _page_done(self, task: asyncio.Task[bool]) -> None:
        if self._state is not BUSY:
            return
        if task.cancelled() or not task.result():
            self._close()
        else:
            self._resume()

    def _hand_over(self, plan: Plan) -> None:
        """Give the connection to a raw handler, once earlier answers are out."""
        assert plan.route is not None
        assert plan.route.raw is not None
        self._flush()
        if not self._outbox.empty:
            return
        rest = bytes(self._buffer[self._at :])
        self._buffer = b""
        self._enter(State.HANDED)
        self._transport.resume_reading()
        request = Request(plan.head, self._origin)
        raw.hand_over(self.hub, self, self._transport, plan.route.raw, request, rest)

    def _enter(self, state: State) -> None:
        self._state = state
        self._deadline = inf

    def _resume(self) -> None:
        """Go on reading after a request that had to wait."""
        self._task = None
        if self._state is BUSY:
            self._state = READING
            self._phase = IDLE
        if self._state is READING and self._outbox.writable:
            self._work()
            if self._state is READING:
                self._set_deadline(True)
        else:
            self._flush()
            self._pace()

    # Answering

    def _keeps_alive(self, plan: Plan) -> bool:
        last = self._ended and self._at == len(self._buffer)
        return plan.head.keep_alive and self.hub.keeps(self.door) and not last

    def _answer_call(self, plan: Plan, endpoint: rpc.Endpoint[Any], body: list[bytes]) -> None:
        keep = self._keeps_alive(plan)
        length = sum(map(len, body))
        self._out += (RPC_HEADS[endpoint.content_type][keep] % length, *body)
        if not keep:
            self._enter(CLOSING)
        if length > LARGE:
            self._outbox.write_all(self._out)
            self._out.clear()

    def _answer(self, plan: Plan, status: int, headers: Headers, body: bytes) -> None:
        keep = self._keeps_alive(plan)
        self._out += (response_head(status, headers, length=len(body), keep_alive=keep), body)
        if not keep:
            self._enter(CLOSING)

    def _refuse(self, error: HttpError) -> None:
        """Answer a request that is not read to its end, and listen a little longer, lest a reset eats the answer."""
        page = error_page(error.status, error.text)
        self._out.append(response_head(error.status, (*error.headers, HTML), length=len(page)) + page)
        self._buffer = b""
        self._at = 0
        self._plan = None
        self.hub.expect(self, 0)
        self._state = LINGERING
        self._deadline = self.hub.clock() + self.hub.limits.linger

    def _flush(self) -> None:
        if self._out:
            self._outbox.write(b"".join(self._out))
            self._out.clear()
        if self._state is CLOSING:
            self._outbox.close()
            self._deadline = self.hub.clock() + self.hub.limits.write_stall
        elif self._state is LINGERING and self._transport.can_write_eof() and self._outbox.empty:
            self._transport.write_eof()

    def _close(self) -> None:
        self._enter(CLOSING)
        self._flush()
