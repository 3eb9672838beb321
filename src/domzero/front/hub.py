"""What all connections share: the dispatcher, the handlers, the limits, and the register of who is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from domzero.engine.calls import Origin
from domzero.front.dispatching import Dispatcher
from domzero.front.limits import Limits
from domzero.front.routes import Routes
from domzero.front.rpc import Endpoint
from domzero.wire.http import HttpError

SMALL_BODY = 64 << 10
"""A body up to this size is received whatever else is: all of them together are little."""
GOODBYE = 0.2
"""Seconds that peers have for closing TLS in turn when the server stops; idle clients do not look before they ask."""


@dataclass(frozen=True, slots=True)
class Door:
    """A kind of listener. Peers of a `local` one are trusted as root; `tls` ones cannot close one direction only."""

    name: str
    tls: bool
    local: bool
    limit: int

    def origin(self, transport: asyncio.BaseTransport) -> Origin:
        """Where calls of this connection come from."""
        if self.local:
            return Origin("local", local=True)
        peer = transport.get_extra_info("peername")
        own = transport.get_extra_info("sockname")
        address, used = (str(name[0]).removeprefix("::ffff:") if name else "" for name in (peer, own))
        return Origin(address or "unknown", own=used)


class Member(Protocol):
    """A connection as the register sees it."""

    door: Door

    def idleness(self) -> tuple[bool, float] | None:
        """Whether it ever asked anything, and since when it is idle; `None` in the middle of something."""

    def check_deadlines(self, now: float) -> None:
        """Act if a deadline has passed."""

    def drain(self) -> bool:
        """Close now if idle, else after the request under way. Whether only the peer's goodbye is missing."""

    def abort(self) -> None:
        """Close at once and drop what was not sent."""


class Hub:
    """The shared state, and the sweep over deadlines: one timer for all connections, none for each request."""

    def __init__(
        self, dispatcher: Dispatcher, endpoints: Mapping[str, Endpoint[Any]], routes: Routes, limits: Limits
    ) -> None:
        self.dispatcher = dispatcher
        self.endpoints = endpoints
        self.routes = routes
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.clock: Callable[[], float] = self.loop.time
        self.draining = False
        self.outside_shut = False
        self.members: set[Member] = set()
        self._counts: dict[str, int] = {}
        self._large: dict[Member, int] = {}
        """The sizes of the larger bodies that are being received."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None

    def count(self, door: Door) -> int:
        """How many connections are open at a door."""
        return self._counts.get(door.name, 0)

    def join(self, member: Member) -> None:
        """A connection was made."""
        self.members.add(member)
        self._counts[member.door.name] = self.count(member.door) + 1
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self.limits.sweep, self._sweep)

    def leave(self, member: Member) -> None:
        """A connection is gone. May be called again for the same one."""
        if member in self.members:
            self.members.remove(member)
            self._counts[member.door.name] -= 1
            self._large.pop(member, None)
            self._left.set()

    def expect(self, member: Member, size: int) -> None:
        """A connection is about to receive a body of that size; 0 says that it has it, or does not want it any more.

        Raises `HttpError` 503 when all larger bodies that are under way would take too much memory.
        """
        if size <= SMALL_BODY:
            self._large.pop(member, None)
        elif sum(self._large.values()) + size > self.limits.bodies_size:
            raise HttpError(503, "Too many large requests are being received; try again.")
        else:
            self._large[member] = size

    def make_room(self, door: Door) -> bool:
        """Whether there is room for one more. A full door closes an idle connection to make some: one that never
        asked anything if there is one, else the longest idle."""
        if self.count(door) < door.limit:
            return True
        idle = [(since, member) for member in self.members if member.door is door and (since := member.idleness())]
        if not idle:
            return False
        _, longest = min(idle, key=lambda pair: pair[0])
        longest.abort()
        self.leave(longest)
        return True

    def keeps(self, door: Door) -> bool:
        """Whether connections of a door may take another request."""
        return not self.draining and (door.local or not self.outside_shut)

    def dismiss_outside(self) -> None:
        """Have connections from outside closed: idle ones now, the others when they have answered."""
        self.outside_shut = True
        for member in list(self.members):
            if not member.door.local:
                member.drain()

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run a coroutine as a task that a stop of the server ends."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self, grace: float) -> None:
        """Let requests under way finish for up to `grace` seconds, then cut the rest off."""
        self.draining = True
        deadline = self.clock() + grace
        while (finished := [member.drain() for member in list(self.members)]) and self.clock() < deadline:
            self._left.clear()
            try:
                async with asyncio.timeout(GOODBYE):
                    await self._left.wait()
            except TimeoutError:
                if all(finished):
                    break
        for member in list(self.members):
            member.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        now = self.clock()
        for member in list(self.members):
            member.check_deadlines(now)
        self._sweeper = self.loop.call_later(self.limits.sweep, self._sweep) if self.members else None
