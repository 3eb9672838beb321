"""A stream of bytes that speaks the protocol: a program of the host, or a guest, for as long as it lasts.

Requests are answered in order. Nothing more is read from a peer that does not read its replies, and from a domain that
asks for more than its rate: both wait, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from domzero.host.clock import Clock
from domzero.host.xenstore.clients import Client
from domzero.host.xenstore.limits import COSTS, EVENTS_OF_A_TOKEN, STEPS_OF_A_TOKEN
from domzero.host.xenstore.requests import answered
from domzero.host.xenstore.store import Store
from domzero.wire.xenstore import Decoder, FramingError, Message, Operation, XenstoreError, encode

log = logging.getLogger(__name__)

HOST_SLICE, GUEST_SLICE = 32, 4
"""Requests of one connection that are answered before others get their turn."""
PIECE = 16_384
"""Bytes that are read at once, and so about what waits in one connection at most."""
_PIECE = bytearray(PIECE)
"""Where asyncio puts what it reads: one for all, since it is taken from there before anything else is read."""
SHORTEST_DELAY = 0.02
"""Seconds that a domain waits at least once its tokens are used up: a timer for each token would cost more than it."""


class Turns:
    """The connections of a server that have something to say, beyond what they were asked for."""

    def __init__(self) -> None:
        self._waiting: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        """One more; it has its turn when whoever caused it has finished, or at the latest when the loop comes round."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.take)
        self._waiting[connection] = None

    def take(self) -> None:
        """Give each its turn."""
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            connection.turn()


class Connection(asyncio.BufferedProtocol):
    """One stream. It belongs to its domain for ever; when the domain goes, so does the stream.

    A domain that was not introduced, or has as many connections as it may, is closed at once. `closed` is called at
    the end, whatever ended it.
    """

    def __init__(
        self, store: Store, clock: Clock, domid: int, turns: Turns, closed: Callable[[Connection], None]
    ) -> None:
        self.domid = domid
        self._store = store
        self._clock = clock
        self._turns = turns
        self._closed = closed
        self._decoder = Decoder()
        self._client: Client | None = None
        self._transport: asyncio.Transport | None = None
        self._held: Message | None = None
        self._full = False
        self._working = False
        self._soon = False
        self._delay: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is there."""
        self._transport = cast(asyncio.Transport, transport)
        limits = self._store.limits
        self._transport.set_write_buffer_limits(high=limits.unread)
        try:
            client = Client(self._store, self.domid, wake=self._events_wait, overflow=self._too_many_events)
        except XenstoreError:
            log.warning("xenstore: a connection of domain %d, which is not here, was refused", self.domid)
            self._transport.abort()
            return
        if self.domid and len(client.domain.connections) >= limits.connections:
            log.warning("xenstore: domain %d has too many connections", self.domid)
            self._transport.abort()
            return
        self._client = client
        client.domain.connections.append(self)

    def get_buffer(self, _: int) -> bytearray:
        """Where what comes next is put."""
        return _PIECE

    def buffer_updated(self, count: int) -> None:
        """Requests, or parts of them."""
        if self._client is not None:
            self._decoder.feed(bytes(_PIECE[:count]))
            self._work()

    def pause_writing(self) -> None:
        """The peer does not read."""
        self._full = True

    def resume_writing(self) -> None:
        """The peer has read."""
        self._full = False
        self._work()

    def connection_lost(self, _: Exception | None) -> None:
        """The stream has ended."""
        self._forsake()
        self._closed(self)

    def end(self) -> None:
        """Cut the stream: the domain is gone, or the daemon stops."""
        self._forsake()
        if self._transport is not None:
            self._transport.abort()

    def begin_anew(self) -> None:
        """Another program is at the other end of the same stream: what was begun on it, is forgotten.

        For a guest's port, which stays when the program that used it does not.
        """
        self._decoder.reset()
        self._held = None
        if self._client is not None:
            self._client.reset()

    def _forsake(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.domain.connections.remove(self)
            client.reset()
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None

    def _work(self) -> None:
        """Tell what happened and answer what has come, as far as the peer reads and its tokens last."""
        if self._client is None or self._transport is None or self._full:
            return
        output = _encoded(self._client)
        try:
            self._working = True
            rest = self._delay is not None or self._answer(self._client, output)
        except FramingError as error:
            log.info("xenstore: domain %d broke the protocol: %s", self.domid, error)
            self._transport.write(b"".join(output))
            self._forsake()
            self._transport.close()
            return
        finally:
            self._working = False
        if output:
            self._transport.write(b"".join(output))
        self._turns.take()
        self._go_on(rest)

    def _answer(self, client: Client, output: list[bytes]) -> bool:
        """One slice of requests, each reply followed by the events it caused. Whether requests are left.

        Raises `FramingError`.
        """
        for _ in range(GUEST_SLICE if self.domid else HOST_SLICE):
            message = self._held or self._decoder.next()
            if message is None:
                return False
            self._held = message
            if self.domid and not self._may_now(client, message):
                return True
            self._held = None
            told, worked = self._store.told, self._store.worked
            output.append(answered(client, message))
            if self.domid:
                events, steps = self._store.told - told, self._store.worked - worked
                client.domain.bucket.owe(events // EVENTS_OF_A_TOKEN + steps // STEPS_OF_A_TOKEN)
            if self._client is None:
                return False
            output += _encoded(client)
        return True

    def _may_now(self, client: Client, message: Message) -> bool:
        cost = COSTS.get(cast(Operation, message.operation), 1)
        delay = client.domain.bucket.take(cost, self._store.now())
        if delay:
            self._delay = asyncio.ensure_future(self._wait(max(delay, SHORTEST_DELAY)))
        return not delay

    async def _wait(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._delay = None
        self._work_soon()

    def _go_on(self, rest: bool) -> None:
        """Read again, unless requests are left or replies are not read."""
        if self._client is None or self._transport is None:
            return
        if rest or self._full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
        if rest and self._delay is None and not self._full:
            self._work_soon()

    def _work_soon(self) -> None:
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._next_slice)

    def _next_slice(self) -> None:
        self._soon = False
        self._work()

    def turn(self) -> None:
        """Tell what happened."""
        if self._client is not None and self._transport is not None and not self._full:
            self._transport.write(b"".join(_encoded(self._client)))

    def _events_wait(self) -> None:
        if not self._working:
            self._turns.add(self)

    def _too_many_events(self) -> None:
        log.warning("xenstore: a connection of domain %d does not read its watch events; it ends", self.domid)
        self.end()


def _encoded(client: Client) -> list[bytes]:
    """The messages of the events that wait."""
    if not client.events_wait:
        return []
    return [
        encode(Operation.WATCH_EVENT, 0, 0, b"%b\0%b\0" % (path.encode("ascii"), token))
        for path, token in client.take_events()
    ]
