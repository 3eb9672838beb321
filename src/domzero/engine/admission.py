"""Admission: which operations may start on an object, who has to wait, and what `allowed_operations` says.

A gate belongs to a class with `allowed_operations` and `current_operations`. What conflicts is decided by one function
over the stored state, so what is refused and what is shown as allowed cannot disagree. An operation that only
conflicts with a running one waits for its turn, first come first served, instead of failing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from domzero.engine.clock import Clock, settled
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

Check: TypeAlias = Callable[[Database, Ref, str], ApiError | None]
"""Whether an operation may start on an object now: None, or the error that says why not."""
Judge: TypeAlias = Callable[[Database, Ref], Callable[[str], ApiError | None]]
"""The same for many operations on one object, at one moment: what they all look at is gathered once."""

PATIENCE = 30.0
"""Seconds that an operation waits for conflicting ones."""
LITTLE_PATIENCE = 2.0
"""The same where the caller rather fails than waits."""
BUSY = "OTHER_OPERATION_IN_PROGRESS"


@dataclass(slots=True, eq=False)
class _Waiter:
    """An operation that waits. `turn` is done once it was admitted, or refused for good with `error`."""

    context: Context
    operation: str
    turn: asyncio.Future[None]
    error: ApiError | None = None


class Gate:
    """Admits operations on the objects of a class.

    `listed` are the operations that `allowed_operations` may show. `overtaking` ones do not queue behind waiting ones.
    `judge` has to say the same as `check`, only quicker; it is for classes with many operations or objects.
    `on_change` is told of each operation that begins or ends on an object: what others allow may depend on it.
    """

    def __init__(
        self, database: Database, cls: str, check: Check, listed: Iterable[str], clock: Clock, *,
        overtaking: Collection[str] = frozenset(), judge: Judge | None = None,
        on_change: Callable[[Ref, str], None] | None = None,
    ) -> None:  # fmt: skip
        self._database = database
        self._clock = clock
        self._cls = cls
        self._check = check
        self._judge = judge or (lambda database, ref: partial(check, database, ref))
        self._listed = tuple(listed)
        self._overtaking = frozenset(overtaking)
        self._on_change = on_change
        self._queues: dict[Ref, deque[_Waiter]] = {}
        self._departures: dict[Ref, set[asyncio.Future[None]]] = {}
        self._held: dict[tuple[Ref, Ref], list[str]] = {}
        """By object and task: the operations that the task has begun there and not ended; the newest one is shown."""

    @contextlib.asynccontextmanager
    async def operation(
        self, context: Context, ref: Ref, operation: str, *, fail_quickly: bool = False
    ) -> AsyncIterator[None]:
        """Within, the operation is among the object's `current_operations`.

        Waits while only running operations stand in the way, at most `PATIENCE` seconds (`LITTLE_PATIENCE` with
        `fail_quickly`). Raises what the check gives, `OTHER_OPERATION_IN_PROGRESS` included when the wait was in vain,
        and `HANDLE_INVALID`.
        """
        if not self._admitted_at_once(context, ref, operation):
            await self._wait_for_turn(context, ref, operation, LITTLE_PATIENCE if fail_quickly else PATIENCE)
        try:
            yield
        finally:
            self._leave(ref, context.task.ref, operation)

    def assert_allowed(self, ref: Ref, operation: str) -> None:
        """Raises what starting the operation now would raise, without waiting."""
        self._database.row(self._cls, ref)
        error = self._check(self._database, ref, operation)
        if error is not None:
            raise error

    def refresh(self, ref: Ref) -> None:
        """Recompute `allowed_operations` and let waiting operations try again, after the object's state changed.

        An object that is gone is none to refresh; those who waited for it are told.
        """
        if self._database.find(self._cls, ref) is not None:
            with self._database.transaction() as transaction:
                transaction.update(self._cls, ref, allowed_operations=self.allowed(ref))
        self._admit_waiting(ref)

    def allowed(self, ref: Ref) -> tuple[str, ...]:
        """The listed operations that may start now."""
        refusal = self._judge(self._database, ref)
        return tuple(name for name in self._listed if refusal(name) is None)

    async def cancel_others(self, context: Context, ref: Ref, patience: float = LITTLE_PATIENCE) -> None:
        """Stop the object's other operations that can be stopped, and wait a little until all of them have left."""
        own = context.task.ref
        for task in self._running(ref):
            handle = context.tasks.running.get(task)
            if task != own and handle is not None and handle.is_cancellable:
                context.tasks.cancel(task)
        deadline = self._clock.monotonic() + patience
        while set(self._running(ref)) - {own} and await self._departure(ref, deadline - self._clock.monotonic()):
            continue

    def _admitted_at_once(self, context: Context, ref: Ref, operation: str) -> bool:
        """Whether the operation needs no waiting and has been admitted. Raises what makes waiting useless.

        A task that holds the object already goes on without queueing: those in the queue may be waiting for it.
        """
        self._database.row(self._cls, ref)
        error = self._check(self._database, ref, operation)
        inside = context.task.stored and (ref, context.task.ref) in self._held
        if error is None and (inside or operation in self._overtaking or not self._queues.get(ref)):
            self._insert(ref, context.task.ref, operation)
            return True
        if error is not None and error.code != BUSY:
            raise error
        return False

    async def _wait_for_turn(self, context: Context, ref: Ref, operation: str, patience: float) -> None:
        context.task.ref  # noqa: B018 - whoever admits it later must not fail for want of a task
        waiter = _Waiter(context, operation, asyncio.get_running_loop().create_future())
        self._queues.setdefault(ref, deque()).append(waiter)
        try:
            await settled(self._clock, waiter.turn, patience)
        except asyncio.CancelledError:
            if waiter.turn.done() and waiter.error is None:
                self._leave(ref, context.task.ref, operation)
            raise
        finally:
            self._forget(ref, waiter)
        if not waiter.turn.done():
            raise self._refusal(ref, operation) or ApiError(BUSY, self._cls, ref)
        if waiter.error is not None:
            raise waiter.error

    def _forget(self, ref: Ref, waiter: _Waiter) -> None:
        queue = self._queues.get(ref)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            self._admit_waiting(ref)

    def _admit_waiting(self, ref: Ref) -> None:
        """Admit from the head of the queue whatever may start now; the first that has to go on waiting ends it."""
        queue = self._queues.get(ref)
        while queue:
            waiter = queue[0]
            waiter.error = self._refusal(ref, waiter.operation)
            if waiter.error is not None and waiter.error.code == BUSY:
                return
            queue.popleft()
            if waiter.error is None:
                self._insert(ref, waiter.context.task.ref, waiter.operation)
            waiter.turn.set_result(None)
        self._queues.pop(ref, None)

    def _refusal(self, ref: Ref, operation: str) -> ApiError | None:
        if self._database.find(self._cls, ref) is None:
            return ApiError("HANDLE_INVALID", self._cls, ref)
        return self._check(self._database, ref, operation)

    def _running(self, ref: Ref) -> Mapping[Ref, str]:
        row = self._database.find(self._cls, ref)
        return {} if row is None else row.record["current_operations"]

    def _insert(self, ref: Ref, task: Ref, operation: str) -> None:
        self._store(ref, {**self._running(ref), task: operation}, operation)
        self._held.setdefault((ref, task), []).append(operation)

    def _leave(self, ref: Ref, task: Ref, operation: str) -> None:
        held = self._held[ref, task]
        held.remove(operation)
        if not held:
            del self._held[ref, task]
        if self._database.find(self._cls, ref) is not None:
            others = {other: running for other, running in self._running(ref).items() if other != task}
            self._store(ref, {**others, task: held[-1]} if held else others, operation)
        self._admit_waiting(ref)
        for departure in self._departures.get(ref, ()):
            if not departure.done():
                departure.set_result(None)

    def _store(self, ref: Ref, operations: Mapping[Ref, str], changed: str) -> None:
        with self._database.transaction() as transaction:
            transaction.update(self._cls, ref, current_operations=operations)
            transaction.update(self._cls, ref, allowed_operations=self.allowed(ref))
            if self._on_change is not None:
                self._on_change(ref, changed)

    async def _departure(self, ref: Ref, seconds: float) -> bool:
        """Wait until an operation leaves the object; whether one did in that time."""
        departure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._departures.setdefault(ref, set())
        waiting.add(departure)
        try:
            return await settled(self._clock, departure, seconds)
        finally:
            waiting.discard(departure)
            if not waiting:
                self._departures.pop(ref, None)
