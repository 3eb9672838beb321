"""Changes that happen together or not at all.

Inside its `with` block a transaction works on the tables directly, so the block sees its own writes, and keeps what
is needed to take them back. Nobody else can look in between: the block runs in one task and does not await. Events and
the disk learn of the changes when the outermost block ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from domzero.engine.changes import Change
from domzero.engine.errors import ApiError
from domzero.engine.row import Row
from domzero.engine.tables import Link, Table
from domzero.idl.records import Record
from domzero.idl.types import Ref

if TYPE_CHECKING:
    from domzero.engine.database import Database


class _Touch:
    """What a transaction did to a row so far, next to the row's present state."""

    __slots__ = ("before", "durable", "generation")

    def __init__(self, before: Record | None) -> None:
        self.before = before
        self.durable = False
        self.generation = 0
        """Not 0 when the row gets this generation, even if it looks as before."""


class Transaction:
    """Made by `Database.transaction`. Use as a context manager; nested use joins the outer transaction.

    An exception that leaves a block takes back what that block did, nested blocks included; if the outer block catches
    it, the outer's own changes stay.
    """

    def __init__(self, database: Database, commit: Callable[[list[Change]], None]) -> None:
        self.task = current_task()
        """The task whose block this is."""
        self._database = database
        self._commit = commit
        self._tables = database.tables
        self._touched: dict[Row, _Touch] = {}
        self._undo: list[Callable[[], None]] = []
        self._savepoints: list[int] = []

    def __enter__(self) -> Self:
        if self._database.open_transaction not in (None, self) or self.task is not current_task():
            raise RuntimeError("a transaction is open in another task: its block must not await")
        self._savepoints.append(len(self._undo))
        self._database.open_transaction = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        savepoint = self._savepoints.pop()
        if kind is not None:
            while len(self._undo) > savepoint:
                self._undo.pop()()
        if not self._savepoints:
            self._database.open_transaction = None
            if kind is None:
                changes = self._changes()
                if changes:
                    self._commit(changes)

    def create(self, cls: str, fields: Mapping[str, Any], *, ref: Ref | None = None) -> Ref:
        """Add an object and give its reference, a new one unless `ref` names one.

        What `fields` leaves out gets its default and a missing or empty `uuid` a new one. Derived sets among the
        fields are ignored, so another object's record can be the start. Raises `ApiError`
        DB_UNIQUENESS_CONSTRAINT_VIOLATION for a uuid or reference that is taken, `KeyError` for an unknown class or
        field and `TypeError` for a value that the field cannot hold.
        """
        table = self._open(cls)
        values = list(table.layout.defaults)
        for name, value in fields.items():
            position = table.layout.position[name]
            if position not in table.derived:
                values[position] = table.prepare[position](value)
        if table.uuid_at is not None:
            values[table.uuid_at] = values[table.uuid_at] or self._database.new_uuid()
            self._assert_uuid_free(table, values[table.uuid_at])
        ref = ref or f"OpaqueRef:{self._database.new_uuid()}"
        if ref in table.rows:
            raise ApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", cls, "_ref", ref)
        for link in self._tables.links_to[cls]:
            values[link.target_position] = self._tables.members(link, ref)
            self._adopt(link, ref)
        row = Row(ref, Record(table.layout, tuple(values)), self._database.changes.next(), 0)
        self._touch(row, None).durable = True
        self._do(lambda: table.insert(row), lambda: table.remove(row))
        for link in self._tables.links_from[cls]:
            self._relink(link, row, (), link.targets(row.record))
        return ref

    def update(self, cls: str, ref: Ref, /, **fields: Any) -> None:
        """Set fields. What is equal to the present value is left alone: no event, nothing to write.

        Raises `ApiError` HANDLE_INVALID, or DB_UNIQUENESS_CONSTRAINT_VIOLATION for a uuid that is taken; `KeyError`
        for an unknown field, `TypeError` for a value that the field cannot hold or a set that is derived.
        """
        table = self._open(cls)
        row = self._database.row(cls, ref)
        old = row.record
        values = list(old.values_)
        changed = []
        for name, value in fields.items():
            position = table.layout.position[name]
            if position in table.derived:
                raise TypeError(f"{cls}.{name} is derived from {table.layout.fields[position].inverse}")
            prepared = table.prepare[position](value)
            if prepared != values[position]:
                values[position] = prepared
                changed.append(position)
        if not changed:
            return
        if table.uuid_at in changed:
            self._assert_uuid_free(table, values[table.uuid_at])
        self._replace(table, row, tuple(values), durable=not table.volatile.issuperset(changed))
        for link in self._tables.links_from[cls]:
            if link.position in changed:
                self._relink(link, row, link.targets(old), link.targets(row.record))

    def destroy(self, cls: str, ref: Ref) -> None:
        """Remove an object. References to it stay as they are. Raises `ApiError` HANDLE_INVALID."""
        table = self._open(cls)
        row = self._database.row(cls, ref)
        for link in self._tables.links_from[cls]:
            self._relink(link, row, link.targets(row.record), ())
        for link in self._tables.links_to[cls]:
            members = row.record.values_[link.target_position]
            if members:
                self._set_orphans(link, ref, members)
        self._touch(row, row.record).durable = True
        self._do(lambda: table.remove(row), lambda: table.insert(row))

    def touch(self, cls: str, ref: Ref) -> int:
        """Make the object count as modified and give its new generation. Raises `ApiError` HANDLE_INVALID."""
        self._open(cls)
        row = self._database.row(cls, ref)
        touch = self._touch(row, row.record)
        touch.generation = touch.generation or self._database.changes.next()
        return touch.generation

    def _open(self, cls: str) -> Table:
        if not self._savepoints:
            raise RuntimeError("the transaction is over")
        return self._tables.by_class[cls]

    def _changes(self) -> list[Change]:
        changes = self._database.changes
        result = []
        for row, touch in self._touched.items():
            table = self._tables.by_class[row.class_name]
            after = row.record if table.rows.get(row.ref) is row else None
            if touch.before is None and after is None:
                continue
            if after is not None and not touch.generation and after == touch.before:
                continue
            generation = touch.generation or changes.next()
            result.append(Change(row, touch.before, after, generation, touch.durable))
        return sorted(result, key=lambda change: change.generation)

    def _do(self, action: Callable[[], None], undo: Callable[[], None]) -> None:
        action()
        self._undo.append(undo)

    def _touch(self, row: Row, before: Record | None) -> _Touch:
        touch = self._touched.get(row)
        if touch is None:
            touch = self._touched[row] = _Touch(before)
            self._undo.append(lambda: self._touched.__delitem__(row))
        return touch

    def _replace(self, table: Table, row: Row, values: tuple[Any, ...], *, durable: bool) -> None:
        old, new = row.record, Record(table.layout, values)
        touch = self._touch(row, old)
        touch.durable = touch.durable or durable
        self._do(lambda: table.replace(row, new), lambda: table.replace(row, old))

    def _relink(self, link: Link, source: Row, before: tuple[Ref, ...], after: tuple[Ref, ...]) -> None:
        for target in before:
            if target not in after:
                members = self._tables.without_source(link, self._tables.members(link, target), source)
                self._set_members(link, target, members)
        for target in after:
            if target not in before:
                members = self._tables.with_source(link, self._tables.members(link, target), source)
                self._set_members(link, target, members)

    def _set_members(self, link: Link, target: Ref, members: tuple[Ref, ...]) -> None:
        table = self._tables.by_class[link.target]
        row = table.rows.get(target)
        if row is None:
            self._set_orphans(link, target, members)
            return
        values = list(row.record.values_)
        values[link.target_position] = members
        self._replace(table, row, tuple(values), durable=False)

    def _adopt(self, link: Link, target: Ref) -> None:
        if (link, target) in self._tables.orphans:
            self._set_orphans(link, target, ())

    def _set_orphans(self, link: Link, target: Ref, members: tuple[Ref, ...]) -> None:
        before = self._tables.orphans.get((link, target), ())
        self._do(lambda: self._store_orphans(link, target, members), lambda: self._store_orphans(link, target, before))

    def _store_orphans(self, link: Link, target: Ref, members: tuple[Ref, ...]) -> None:
        if members:
            self._tables.orphans[link, target] = members
        else:
            self._tables.orphans.pop((link, target), None)

    def _assert_uuid_free(self, table: Table, uuid: str) -> None:
        if uuid in table.uuids:
            raise ApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", table.layout.name, "uuid", uuid)


def current_task() -> asyncio.Task[Any] | None:
    """The running task; None in a callback or outside an event loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
