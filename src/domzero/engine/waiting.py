"""Calls that wait for events, woken together a moment after something happened.

The moment lets a storm of changes become one answer per waiting call. It grows with the number of calls that are about
to be answered, so that answering takes at most about half of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from domzero.engine.clock import Clock, settled
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

MOMENT = 0.003
"""Seconds between a change and the answer that tells of it, with few waiting calls."""
MOMENT_PER_CALL = 0.00005
"""Added for each call to be answered: roughly what an answer costs."""


class Call:
    """A call of some session that waits. Used by one task."""

    __slots__ = ("_error", "_wake", "session")

    def __init__(self, session: Ref) -> None:
        self.session = session
        self._wake: asyncio.Future[None] | None = None
        self._error: ApiError | None = None

    async def wait(self, clock: Clock, seconds: float | None) -> bool:
        """Wait for `wake`, at most that long; whether it came. Raises what `fail` was given, also before."""
        wake = self._wake = asyncio.get_running_loop().create_future()
        if self._error is not None:
            raise self._error
        if seconds is None:
            await wake
        woken = seconds is None or await settled(clock, wake, seconds)
        if self._error is not None:
            raise self._error
        return woken

    def wake(self) -> None:
        """End the wait."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def fail(self, error: ApiError) -> None:
        """End this wait, or the next, with an error."""
        self._error = error
        self.wake()


class Waking:
    """The calls to be woken at the next moment, and all waiting calls by session."""

    def __init__(self) -> None:
        self._soon: dict[Call, None] = {}
        self._moment: asyncio.TimerHandle | None = None
        self._by_session: dict[Ref, dict[Call, None]] = {}

    def enter(self, session: Ref) -> Call:
        """A new call that is going to wait."""
        call = Call(session)
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

    def _now(self) -> None:
        self._moment = None
        calls, self._soon = self._soon, {}
        for call in calls:
            call.wake()
