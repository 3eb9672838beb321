"""The task of one call, as its implementation sees it.

The task object is stored when somebody first needs its reference; for `Async` calls that is at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from domzero.engine.sessions import Session
from domzero.idl.types import NULL_REF, Ref

if TYPE_CHECKING:
    from domzero.engine.tasks import Tasks


class TaskHandle:
    """The task of one call. `cancel_requested` is set once somebody asked to stop it."""

    __slots__ = ("_cancellable", "_ref", "_tasks", "cancel_requested", "label", "parent", "runner", "session")

    def __init__(self, tasks: Tasks, label: str, session: Session | None, parent: Ref = NULL_REF) -> None:
        self._tasks = tasks
        self._ref: Ref | None = None
        self._cancellable = 0
        self.label = label
        self.session = session
        self.parent = parent
        self.runner: asyncio.Task[Any] | None = None
        self.cancel_requested = False

    @property
    def stored(self) -> bool:
        """Whether there is a task object already."""
        return self._ref is not None

    @property
    def ref(self) -> Ref:
        """The task object, made now if there is none yet."""
        if self._ref is None:
            self.bind(self._tasks.store(self.label, "", self.session, self.parent))
        assert self._ref is not None
        return self._ref

    def bind(self, ref: Ref) -> None:
        """Stand for an object that is stored already."""
        self._ref = ref
        self._tasks.running[ref] = self
        self._tasks.show_cancellable(self)

    def set_progress(self, fraction: float) -> None:
        """Say how far the work is, from 0 to 1. Costs little and is not forced to disk; no task object, no effect."""
        if self._ref is not None:
            self._tasks.set_progress(self._ref, fraction)

    @property
    def is_cancellable(self) -> bool:
        """Whether a request to stop would be accepted now."""
        return self._cancellable > 0 and self.runner is not None

    @contextmanager
    def cancellable(self) -> Iterator[None]:
        """Within, `task.cancel` raises `asyncio.CancelledError` where the work waits; the call then ends cancelled."""
        self._cancellable += 1
        self._tasks.show_cancellable(self)
        try:
            yield
        finally:
            self._cancellable -= 1
            self._tasks.show_cancellable(self)

    def subtask(self, label: str) -> TaskHandle:
        """A smaller task on behalf of this one, to be run by `Tasks.carry_out`."""
        return TaskHandle(self._tasks, label, self.session, self.ref)

    def cancel(self) -> None:
        """Stop the work where it waits. The caller checked that this is allowed."""
        self.cancel_requested = True
        if self.runner is not None:
            self.runner.cancel()
