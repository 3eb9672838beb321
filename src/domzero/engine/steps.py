"""Long work as a list of steps, each with its undo.

    async with Steps() as steps:
        disk = await steps.do("attach disk", lambda: storage.attach(name), lambda: storage.detach(name))
        tap = await steps.do("make tap", make_tap, delete_tap)
        await steps.do("start", lambda: machine.start(disk, tap))

Leaving the block with an exception, a cancellation included, undoes the finished steps in reverse order. Leaving it in
peace keeps everything.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, overload

Result = TypeVar("Result")
Undo: TypeAlias = Callable[[], Awaitable[object] | object]

log = logging.getLogger(__name__)

before_step: ContextVar[Callable[[str], None] | None] = ContextVar("before_step", default=None)
"""Called with each step's name before it is done; what it raises makes the step fail. So tests can fail any step."""


class Steps:
    """The steps of one piece of work. `done` names those that are finished and would be undone."""

    def __init__(self) -> None:
        self._undos: list[tuple[str, Undo]] = []

    @property
    def done(self) -> tuple[str, ...]:
        """The names of the finished steps that have an undo, in order."""
        return tuple(name for name, _ in self._undos)

    @overload
    async def do(self, name: str, do: Callable[[], Awaitable[Result]], undo: Undo | None = None) -> Result: ...

    @overload
    async def do(self, name: str, do: Callable[[], Result], undo: Undo | None = None) -> Result: ...

    async def do(self, name: str, do: Callable[[], Any], undo: Undo | None = None) -> Any:
        """Carry out a step and give its result; `undo` is called if later work fails.

        Whatever `do` raises passes on, a cancellation included; a step that failed is not undone, so it must leave
        nothing behind itself.
        """
        check = before_step.get()
        if check is not None:
            check(name)
        done = do()
        result = (await done) if inspect.isawaitable(done) else done
        if undo is not None:
            self._undos.append((name, undo))
        return result

    def on_failure(self, name: str, undo: Undo) -> None:
        """Have something undone whose doing is no step, for instance because it was done before."""
        self._undos.append((name, undo))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._undos:
            await _to_the_end(self._undo_all())

    async def _undo_all(self) -> None:
        while self._undos:
            name, undo = self._undos.pop()
            try:
                undone = undo()
                if inspect.isawaitable(undone):
                    await undone
            except Exception:
                log.exception("undoing the step %r failed", name)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do the work whole, however often the caller is cancelled meanwhile: the error on its way out says enough."""
    running = asyncio.get_running_loop().create_task(work)
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            log.info("a cancellation waits for the end of an undo")
