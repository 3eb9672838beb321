"""Work that is worth doing once for all who ask for it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

Outcome: TypeAlias = "asyncio.Future[ApiError | None]"


class SharedWork:
    """One piece of work at a time on each object. Who comes while it goes on waits for the next, which all share.

    So everybody gets an outcome of work that began after they asked.
    """

    def __init__(self) -> None:
        self._running: dict[Ref, Outcome] = {}
        self._next: dict[Ref, Outcome] = {}

    def is_running(self, ref: Ref) -> bool:
        """Whether there is work going on, or about to begin."""
        return ref in self._running or ref in self._next

    async def share(self, ref: Ref, work: Callable[[], Awaitable[None]]) -> None:
        """Return when such work has been done, by this caller or by another. Raises the `ApiError` that it ended with.

        Where the one who does it is cancelled, another of those who wait takes over.
        """
        while (waiting := self._next.get(ref)) is not None:
            await asyncio.wait({waiting})
            if not waiting.cancelled():
                error = waiting.result()
                if error is not None:
                    raise ApiError(*error.description)
                return
        await self._lead(ref, work)

    async def _lead(self, ref: Ref, work: Callable[[], Awaitable[None]]) -> None:
        outcome: Outcome = asyncio.get_running_loop().create_future()
        try:
            await self._wait_for_turn(ref, outcome)
            self._running[ref] = outcome
            await work()
            outcome.set_result(None)
        except ApiError as error:
            outcome.set_result(error)
            raise
        finally:
            outcome.cancel()
            if self._running.get(ref) is outcome:
                del self._running[ref]

    async def _wait_for_turn(self, ref: Ref, outcome: Outcome) -> None:
        running = self._running.get(ref)
        if running is None:
            return
        self._next[ref] = outcome
        try:
            await asyncio.wait({running})
        finally:
            del self._next[ref]
