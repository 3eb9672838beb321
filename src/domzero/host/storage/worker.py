"""Work on a medium that may stop answering, as a server that is gone or a broken disk does.

A system call on such a medium cannot be ended, only no longer be waited for. So each is made in a thread of its own,
which keeps neither the daemon nor other threads; once one is late, nothing more is begun on that medium until it is
back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from domzero.host.storage import numbers
from domzero.host.storage.protocol import StorageError

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 120.0
"""Seconds that a local medium has for one step."""
LONG = 20
"""How many times longer putting a whole disk on the medium may take."""


class Workers:
    """The threads and tools at work on one medium, called `name` in errors. `patience` is in seconds."""

    def __init__(self, name: str, patience: float = PATIENCE) -> None:
        self.name = name
        self.patience = patience
        self._late: set[asyncio.Future[Any]] = set()

    @property
    def answers(self) -> bool:
        """Whether nothing is late."""
        return not self._late

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in a thread. When this call is over so is the work, unless it is late: see `attend`."""
        return await self.attend(lambda: in_own_thread(function, *args, **kwargs))

    async def attend(self, begin: Callable[[], Awaitable[T]], patience: float | None = None) -> T:
        """Await what `begin` begins, to its end even when this call is cancelled; the cancellation is raised then.

        Raises `StorageError` 200 when it is late, and 47, without beginning anything, while something else is.
        """
        if self._late:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"{self.name} does not answer")
        loop, cancelled = asyncio.get_running_loop(), False
        work = asyncio.ensure_future(begin())
        deadline = loop.time() + (patience or self.patience)
        while not work.done():
            left = deadline - loop.time()
            if left <= 0:
                self._give_up(work)
                raise StorageError(numbers.INPUT_OUTPUT, f"{self.name} has not answered for {self.patience:g} seconds")
            try:
                await asyncio.wait({work}, timeout=left)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled and (work.cancelled() or work.exception() is None):
            raise asyncio.CancelledError
        return work.result()

    def _give_up(self, work: asyncio.Future[Any]) -> None:
        log.error("%s does not answer", self.name)
        self._late.add(work)
        work.add_done_callback(self._come_back)

    def _come_back(self, work: asyncio.Future[Any]) -> None:
        self._late.discard(work)
        if not work.cancelled():
            log.warning("%s answers again: %s", self.name, work.exception() or "what was late is done")


def in_own_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Begin blocking work in a thread that does not keep the process from ending."""
    outcome: Future[T] = Future()

    def body() -> None:
        try:
            outcome.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            outcome.set_exception(error)

    threading.Thread(target=body, name="storage", daemon=True).start()
    return asyncio.wrap_future(outcome)
