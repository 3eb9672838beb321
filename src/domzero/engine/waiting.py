"""Calls that wait for events, woken together a moment after something happened.

The moment lets a storm of changes become one answer per waiting call. It grows with the number of calls that are about
to be answered, so that answering takes at most about half of the time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Iterable

from domzero.engine.clock import Clock
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

MOMENT = 0.003
"""Seconds between a change and the answer that tells of it, with few waiting calls."""
MOMENT_PER_CALL = 0.00003
"""Added for each call to be answered: roughly what an answer costs."""


class Call:
    """A call of some session that waits. Used by one task."""

    __slots__ = ("_error", "_expired", "_wake", "over", "session")

    def __init__(self, session: Ref, *, expired: bool = False) -> None:
        self._expired = expired
        self.session = session
        self.over = False
        self._wake: asyncio.Future[bool] | None = None
        self._error: ApiError | None = None

    async def wait(self) -> bool:
        """Wait for `wake` (True) or `expire` (False, also for one that came before, when the call was awake already).

        Raises what `fail` was given, also before.
        """
        wake: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._wake = wake
        if self._error is not None:
            raise self._error
        if self._expired:
            return False
        woken = await wake
        if self._error is not None:
            raise self._error
        return woken

    def wake(self) -> None:
        """End the wait: something happened."""
        self._end(True)

    def expire(self) -> None:
        """End this wait, or the next: its time is over."""
        self._expired = True
        self._end(False)

    def fail(self, error: ApiError) -> None:
        """End this wait, or the next, with an error."""
        self._error = error
        self._end(True)

    def _end(self, woken: bool) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(woken)


class Deadlines:
    """Ends waits whose time is over. One task sleeps for all of them, since a timer per call would cost more than the
    rest of an answer; it lives only while there is a deadline."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Call]] = []
        self._order = itertools.count()
        self._living = 0
        self._next = 0.0
        self._sleeper: asyncio.Task[None] | None = None

    def add(self, call: Call, when: float) -> None:
        """Expire the call at that time of the monotonic clock, unless it is over by then."""
        heapq.heappush(self._heap, (when, next(self._order), call))
        self._living += 1
        if self._sleeper is None or when < self._next:
            if self._sleeper is not None:
                self._sleeper.cancel()
            self._next = when
            self._sleeper = asyncio.get_running_loop().create_task(self._sleep())

    def drop(self, call: Call) -> None:
        """The call is over before its time."""
        call.over = True
        self._living -= 1
        if not self._living:
            self._heap.clear()
            if self._sleeper is not None:
                self._sleeper.cancel()
                self._sleeper = None
        elif len(self._heap) > 2 * self._living + 64:
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)

    async def _sleep(self) -> None:
        while self._heap:
            when, _, call = self._heap[0]
            now = self._clock.monotonic()
            if when <= now or call.over:
                heapq.heappop(self._heap)
                call.expire()
            else:
                self._next = when
                await self._clock.sleep(when - now)
        self._sleeper = None


class Waking:
    """The calls to be woken at the next moment, and all waiting calls by session."""

    def __init__(self) -> None:
        self._soon: dict[Call, None] = {}
        self._moment: asyncio.TimerHandle | None = None
        self._by_session: dict[Ref, dict[Call, None]] = {}
        self._closed = False

    def enter(self, session: Ref) -> Call:
        """A new call that is going to wait."""
        call = Call(session, expired=self._closed)
        self._by_session.setdefault(session, {})[call] = None
        return call

    def leave(self, call: Call) -> None:
        """The call is over."""
        self._soon.pop(call, None)
        calls = self._by_session.get(call.session)
        if calls is not None:
            calls.pop(call, None)
            if not calls:
                del self._by_session[call.session]

    def soon(self, calls: Iterable[Call]) -> None:
        """Wake these calls at the next moment."""
        self._soon.update((call, None) for call in calls)
        if self._soon and self._moment is None:
            delay = MOMENT + MOMENT_PER_CALL * len(self._soon)
            self._moment = asyncio.get_running_loop().call_later(delay, self._now)

    def end_session(self, session: Ref) -> None:
        """Fail the session's waiting calls: it is gone."""
        for call in self._by_session.pop(session, {}):
            call.fail(ApiError("SESSION_INVALID", session))

    def close(self) -> None:
        """End every wait, now and from now on, as if its time were over."""
        self._closed = True
        for calls in self._by_session.values():
            for call in calls:
                call.expire()

    def _now(self) -> None:
        self._moment = None
        calls, self._soon = self._soon, {}
        for call in calls:
            call.wake()
