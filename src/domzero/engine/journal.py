"""Brings committed transactions to disk, many at a time, and takes them back when the disk refuses.

While one batch is being written, later transactions gather for the next (group commit), so the rate of commits is not
bound by the rate of syncs. Everything but encoding and writing happens in the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from domzero.engine.changes import Change
from domzero.engine.clock import Clock
from domzero.engine.codec import Encoder
from domzero.engine.errors import ApiError
from domzero.engine.row import Row
from domzero.engine.store import GENERATIONS_RESERVED, Batch, EncodedRow, Store
from domzero.engine.writer import Writer
from domzero.idl.records import Record

RETRY_SECONDS = 5.0
"""How long facts that the disk refused wait for another try when nothing else is written meanwhile."""

log = logging.getLogger(__name__)


class Fate:
    """Whether a transaction of some task was taken back, and why; told once."""

    __slots__ = ("lost",)

    def __init__(self) -> None:
        self.lost: str | None = None


_fate: ContextVar[Fate] = ContextVar("fate")


def own_fate() -> None:
    """From here on the running task, and what it starts, learns what is taken back of its own, and of nobody else's.

    Without this, all work that one connection set going would share what it learns, and the first to hear of a loss
    would keep it from the one whose loss it was.
    """
    _fate.set(Fate())


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction that is applied in memory: its changes that have to be on disk."""

    changes: Sequence[Change]
    observed: bool
    fate: Fate


@dataclass(slots=True)
class _Round:
    """What goes to disk together. `kept` are rows that no commit of this round stands for."""

    commits: list[Commit] = field(default_factory=list)
    kept: dict[Row, None] = field(default_factory=dict)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def rows(self) -> dict[Row, None]:
        return self.kept | {change.row: None for commit in self.commits for change in commit.changes}


class Journal:
    """The way to disk of one database, whose writer thread it uses alone once it exists.

    `is_live` tells whether a row is in its table. `revert` takes back commits in memory, given oldest first, and gives
    the rows that have to be written anew because of that.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        clock: Clock,
        encoders: Mapping[str, Encoder],
        is_live: Callable[[Row], bool],
        revert: Callable[[Sequence[Commit]], Iterable[Row]],
        start: int,
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._encoders = encoders
        self._is_live = is_live
        self._revert = revert
        self._reserved = start + GENERATIONS_RESERVED
        self._generation = start
        self._loop = asyncio.get_running_loop()
        self._next = _Round()
        self._current: _Round | None = None
        self._lazy: dict[Row, None] = {}
        self._scheduled = False
        self._retry: asyncio.Task[None] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether something that was applied is not on disk yet."""
        return bool(self._next.commits) or self._current is not None

    def add(self, changes: Sequence[Change], *, observed: bool) -> None:
        """A transaction was applied; it will be written with the next batch."""
        durable = [change for change in changes if change.durable]
        self._lazy.update((change.row, None) for change in changes if not change.durable)
        self._generation = changes[-1].generation
        if durable:
            fate = _fate.get(None)
            if fate is None:
                _fate.set(fate := Fate())
            self._next.commits.append(Commit(durable, observed, fate))
        if durable or self._reservation_due():
            self._schedule()

    async def durable(self) -> None:
        """See `Database.durable`."""
        round_ = self._next if self._next.commits else self._current
        fate = _fate.get(None)
        try:
            if round_ is not None:
                waiter: asyncio.Future[None] = self._loop.create_future()
                round_.waiters.append(waiter)
                await waiter
            if fate is not None and fate.lost is not None:
                raise ApiError("INTERNAL_ERROR", fate.lost)
        finally:
            if fate is not None:
                fate.lost = None

    async def finish(self) -> None:
        """Write everything that is left, measurements included. Raises `ApiError` when the disk refuses."""
        self._next.kept.update(self._lazy)
        self._lazy.clear()
        try:
            while self._next.kept or self._next.commits or self._current is not None:
                waiter: asyncio.Future[None] = self._loop.create_future()
                (self._current or self._next).waiters.append(waiter)
                self._start()
                await waiter
        finally:
            if self._retry is not None:
                self._retry.cancel()

    def _reservation_due(self) -> bool:
        return self._generation > self._reserved - GENERATIONS_RESERVED // 2

    def _schedule(self) -> None:
        if not self._scheduled and self._current is None:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        rows = self._next.rows()
        if self._current is not None or not (rows or self._reservation_due()):
            return
        self._current, self._next = self._next, _Round()
        for row in rows:
            self._lazy.pop(row, None)
        living = [(row, row.record) for row in rows if self._is_live(row)]
        deleted = [row.created for row in rows if not self._is_live(row)]
        reserved = self._generation + GENERATIONS_RESERVED if self._reservation_due() else None
        self._writer.submit(
            lambda: self._store.write(Batch(self._encode(living), deleted, reserved)),
            lambda _, error: self._done(rows, reserved, error),
        )

    def _encode(self, rows: Iterable[tuple[Row, Record]]) -> list[EncodedRow]:
        return [
            EncodedRow(row.created, row.ref, row.class_name, row.generation, self._encoders[row.class_name](record))
            for row, record in rows
        ]

    def _done(self, rows: dict[Row, None], reserved: int | None, error: BaseException | None) -> None:
        done, self._current = self._current, None
        assert done is not None
        if error is not None:
            self._take_back(done, rows, error)
            return
        if reserved is not None:
            self._reserved = reserved
        for waiter in done.waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._next.commits or self._next.kept:
            self._start()

    def _take_back(self, refused: _Round, rows: dict[Row, None], error: BaseException) -> None:
        log.error("%s", error)
        commits = [*refused.commits, *self._next.commits]
        waiters = [*refused.waiters, *self._next.waiters]
        kept = refused.kept | self._next.kept
        self._next = _Round()
        self._lazy.update(rows)
        for commit in commits:
            if commit.observed:
                kept.update((change.row, None) for change in commit.changes)
            else:
                commit.fate.lost = str(error)
        kept.update((row, None) for row in self._revert(commits))
        self._next.kept.update(kept)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(ApiError("INTERNAL_ERROR", str(error)))
        if kept and self._retry is None:
            self._retry = self._loop.create_task(self._try_again())

    async def _try_again(self) -> None:
        await self._clock.sleep(RETRY_SECONDS)
        self._retry = None
        self._schedule()
