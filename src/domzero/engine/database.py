"""The object database: every object in memory, every acknowledged change on disk.

Everything but the disk happens in one event loop, so whoever does not await sees a consistent state. Readers get
immutable records and pay no copy. A transaction is in memory, and visible, when its block ends; it is on disk when
`durable` returns, which is what a call waits for before it answers.
"""

from __future__ import annotations

import gc
import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from domzero.engine.changes import DELETIONS_KEPT, Change, ChangeLog
from domzero.engine.clock import Clock
from domzero.engine.codec import Encoder
from domzero.engine.consistency import Finding
from domzero.engine.errors import ApiError
from domzero.engine.journal import Commit, Journal
from domzero.engine.loading import Loader
from domzero.engine.migrations import Migration
from domzero.engine.query import compile_query
from domzero.engine.revert import Reversal
from domzero.engine.row import Row
from domzero.engine.staging import Staging
from domzero.engine.store import GENERATIONS_RESERVED, Store, StoreError
from domzero.engine.tables import Tables
from domzero.engine.transactions import Transaction
from domzero.engine.writer import Writer
from domzero.idl.graph import Graph
from domzero.idl.records import Layout, Record
from domzero.idl.types import Ref

log = logging.getLogger(__name__)


def random_uuid() -> str:
    """A new random uuid."""
    return str(uuid.uuid4())


class Database:
    """All objects of all classes. Made by `open`; used in the event loop in which it was opened."""

    def __init__(self, graph: Graph, new_uuid: Callable[[], str], deletions_kept: int) -> None:
        self.graph = graph
        self.tables = Tables(graph)
        self.layouts: Mapping[str, Layout] = {name: table.layout for name, table in self.tables.by_class.items()}
        self.new_uuid = new_uuid
        self.changes = ChangeLog(0, deletions_kept)
        self.open_transaction: Transaction | None = None
        self.findings: tuple[Finding, ...] = ()
        """What was wrong with the stored objects, and what was done about it."""
        self._listeners: list[Callable[[Sequence[Change]], None]] = []
        self._journal: Journal | None = None
        self._store: Store | None = None
        self._writer: Writer | None = None
        self._migrations: Sequence[Migration] = ()
        self._owners: Collection[str] = ()

    @classmethod
    async def open(
        cls,
        graph: Graph,
        path: Path | None,
        clock: Clock,
        *,
        migrations: Sequence[Migration] = (),
        owners: Collection[str] = (),
        new_uuid: Callable[[], str] = random_uuid,
        deletions_kept: int = DELETIONS_KEPT,
    ) -> Self:
        """Open the file, or make it; without a path nothing is kept: `claim` and `load` in one. Raises like those."""
        database = await cls.claim(graph, path, new_uuid=new_uuid, deletions_kept=deletions_kept)
        await database.load(clock, migrations=migrations, owners=owners)
        return database

    @classmethod
    async def claim(
        cls,
        graph: Graph,
        path: Path | None,
        *,
        new_uuid: Callable[[], str] = random_uuid,
        deletions_kept: int = DELETIONS_KEPT,
    ) -> Self:
        """Keep everybody else from the file, which is made if there is none. Nothing of it is read before `load`.

        Raises `StoreError` when the file is in use, of another program or no database.
        """
        database = cls(graph, new_uuid, deletions_kept)
        if path is not None:
            database._writer = Writer("database")
            try:
                database._store = await database._writer.run(lambda: Store(path))
            except BaseException:
                await database._release()
                raise
        return database

    async def load(self, clock: Clock, *, migrations: Sequence[Migration] = (), owners: Collection[str] = ()) -> None:
        """Read every object; before this is over the database is not to be used.

        `owners` names reference fields ("VBD.VM") without whose object the row itself makes no sense: a row that lost
        it is dropped. Other references to objects that are gone are set to null. Raises `StoreError` when the file is
        damaged or written by a newer version; then it is let go.
        """
        self._migrations, self._owners = migrations, owners
        if self._store is None or self._writer is None:
            return
        store, loader = self._store, Loader(self.graph, self.tables, migrations, owners, self.new_uuid)
        try:
            start = await self._writer.run(lambda: self._load(store, loader))
        except BaseException:
            await self._release()
            raise
        self.findings = tuple(loader.findings)
        for finding in self.findings:
            log.warning("%s", finding)
        encoders = {name: Encoder(layout) for name, layout in self.layouts.items()}
        self._journal = Journal(store, self._writer, clock, encoders, self._is_live, self._revert, start)

    def _load(self, store: Store, loader: Loader) -> int:
        collecting = gc.isenabled()
        gc.disable()  # a million new objects and no garbage: collections would take longer than the loading
        try:
            start = store.reserve(loader.load(store))
            watched = [table.rows.values() for table in self.tables.by_class.values() if table.emits_events]
            self.changes.begin(start, sorted(chain.from_iterable(watched), key=attrgetter("generation")))
        finally:
            if collecting:
                gc.enable()
        return start

    async def close(self) -> None:
        """Write what is left and let go of the file. Raises `ApiError` INTERNAL_ERROR when not all could be written."""
        try:
            if self._journal is not None:
                await self._journal.finish()
        finally:
            self._journal = None
            await self._release()

    async def _release(self) -> None:
        writer, self._writer = self._writer, None
        store, self._store = self._store, None
        if writer is not None:
            if store is not None:
                await writer.run(store.close)
            writer.stop()

    @property
    def generation(self) -> int:
        """A number that grows with every change and is never used twice, not even after a crash."""
        return self.changes.generation

    def row(self, cls: str, ref: Ref) -> Row:
        """The row behind a reference. Raises `ApiError` HANDLE_INVALID; `KeyError` for an unknown class."""
        row = self.tables.by_class[cls].rows.get(ref)
        if row is None:
            raise ApiError("HANDLE_INVALID", cls, ref)
        return row

    def record(self, cls: str, ref: Ref) -> Record:
        """The present version of an object. Raises like `row`."""
        return self.row(cls, ref).record

    def get(self, cls: str, ref: Ref, field: str) -> Any:
        """One field's present value. Raises like `row`, and `KeyError` for an unknown field."""
        return self.row(cls, ref).record[field]

    def find(self, cls: str, ref: Ref) -> Row | None:
        """The row behind a reference, or None."""
        return self.tables.by_class[cls].rows.get(ref)

    def by_uuid(self, cls: str, uuid: str) -> Ref:
        """The reference of the object with that uuid. Raises `ApiError` UUID_INVALID."""
        row = self.tables.by_class[cls].uuids.get(uuid)
        if row is None:
            raise ApiError("UUID_INVALID", cls, uuid)
        return row.ref

    def by_name_label(self, cls: str, label: str) -> tuple[Ref, ...]:
        """The references of all objects with exactly that name."""
        return tuple(self.tables.by_class[cls].labels.get(label, ()))

    def refs(self, cls: str) -> tuple[Ref, ...]:
        """The references of all objects of a class."""
        return tuple(self.tables.by_class[cls].rows)

    def rows(self, cls: str) -> Mapping[Ref, Row]:
        """All objects of a class: a live view, not to be iterated across an await."""
        return MappingProxyType(self.tables.by_class[cls].rows)

    def select(self, cls: str, expression: str) -> dict[Ref, Record]:
        """The objects for which the expression of `get_all_records_where` holds. Raises `ApiError` INVALID_VALUE."""
        table = self.tables.by_class[cls]
        matches = compile_query(table.layout, expression)
        return {ref: row.record for ref, row in table.rows.items() if matches(row)}

    def transaction(self, *, observed: bool = False) -> Transaction:
        """Changes that happen together; see `Transaction`. Inside another transaction's block it is that one.

        An `observed` transaction states facts (a domain is gone): a disk that refuses does not undo them. A block
        inside another one follows the outer block in this.
        """
        if self.open_transaction is not None:
            return self.open_transaction
        return Transaction(self, lambda changes: self._commit(changes, observed=observed))

    async def durable(self) -> None:
        """Return when everything applied so far is on disk.

        Raises `ApiError` INTERNAL_ERROR with a sentence when the disk refused; then everything that was not on disk
        is taken back. A task whose transaction was taken back while it did something else learns of it here as well,
        as long as it is the task that made the transaction or one started by it.
        """
        if self._journal is not None:
            await self._journal.durable()

    @property
    def has_unsaved(self) -> bool:
        """Whether something that everybody sees already is not on disk yet."""
        return self._journal is not None and self._journal.is_behind

    @property
    def format(self) -> int:
        """The number of migrations that stored objects went through."""
        return len(self._migrations)

    async def copy_to(self, path: Path) -> None:
        """Write all that was acknowledged, at one moment, to a new file of the same kind. Raises `StoreError`.

        Changes go on meanwhile; only their way to disk waits. A database that keeps nothing cannot be copied.
        """
        if self._store is None or self._writer is None:
            raise StoreError("The database is not kept in a file.")
        store = self._store
        await self.durable()
        await self._writer.run(lambda: store.copy_to(path))

    def staging(self, path: Path) -> Staging:
        """A new database at that path, to take this one's place; see `Staging`, which blocks."""
        newest = self.generation + GENERATIONS_RESERVED
        return Staging(self.graph, path, self._migrations, self._owners, self.new_uuid, newest)

    def subscribe(self, listener: Callable[[Sequence[Change]], None]) -> None:
        """Have the listener called with the changes of every transaction, right after it is applied."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[Sequence[Change]], None]) -> None:
        """Call a listener no more. Not for a listener to do while it is being called."""
        self._listeners.remove(listener)

    def _commit(self, changes: Sequence[Change], *, observed: bool) -> None:
        self._number(changes)
        if self._journal is not None:
            self._journal.add(changes, observed=observed)
        self._tell(changes)

    def _number(self, changes: Sequence[Change]) -> None:
        for change in changes:
            row = change.row
            row.generation = change.generation
            if self.tables.by_class[row.class_name].emits_events:
                if change.after is None:
                    self.changes.deleted(row, change.generation)
                else:
                    self.changes.changed(row)

    def _tell(self, changes: Sequence[Change]) -> None:
        for listener in self._listeners:
            listener(changes)

    def _commit_reversal(self, changes: Sequence[Change]) -> None:
        self._number(changes)
        self._tell(changes)

    def _is_live(self, row: Row) -> bool:
        return self.tables.by_class[row.class_name].rows.get(row.ref) is row

    def _revert(self, commits: Sequence[Commit]) -> Iterable[Row]:
        with Transaction(self, self._commit_reversal) as transaction:
            return Reversal(self.tables, transaction).apply(commits)
