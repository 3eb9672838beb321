"""One thread that does the blocking work of the store, in order."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Writer:
    """Runs functions one after another in its own thread. Belongs to the event loop in which it was made."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[], Result]) -> Result:
        """The function's result, or what it raised. It runs to its end even when the caller is cancelled."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def done(result: Result | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None only when Result allows it

        self.submit(function, done)
        return await future

    def submit(
        self, function: Callable[[], Result], done: Callable[[Result | None, BaseException | None], None]
    ) -> None:
        """Run the function; `done` gets its result or what it raised, in the event loop."""

        def job() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001  # handed on, whatever it is
                self._loop.call_soon_threadsafe(done, None, error)
            else:
                self._loop.call_soon_threadsafe(done, result, None)

        self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread end after the jobs it has, and wait for it. `done` of those is still called."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
