"""Takes transactions back that the disk refused, although others may have followed that stay.

What is decided here: which rows and fields return to what they were. Facts (observed transactions) and measurements
stay; the inverse changes are an ordinary transaction, so that whoever follows the events ends up with the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from domzero.engine.changes import Change
from domzero.engine.journal import Commit
from domzero.engine.row import Row
from domzero.engine.tables import Table, Tables
from domzero.idl.types import Ref

if TYPE_CHECKING:
    from domzero.engine.transactions import Transaction


class Reversal:
    """Applies the inverse of refused commits through a transaction that the caller has opened."""

    def __init__(self, tables: Tables, transaction: Transaction) -> None:
        self._tables = tables
        self._transaction = transaction
        self._facts: set[tuple[Row, int]] = set()
        self._returned: dict[Row, Ref] = {}

    def apply(self, commits: Sequence[Commit]) -> list[Row]:
        """Take the commits back, given oldest first, and give every row that the disk knows in another shape: objects
        that came back to life have a new row, and the old one is still to be deleted."""
        for commit in reversed(commits):
            for change in reversed(commit.changes):
                if commit.observed:
                    self._facts.update((change.row, position) for position in self._altered(change))
                else:
                    self._take_back(change)
        rows = list(self._returned)
        for row in tuple(rows):
            living = self._living(row)
            if living is not None:
                rows.append(living)
        return rows

    def _take_back(self, change: Change) -> None:
        table = self._tables.by_class[change.row.class_name]
        if change.after is None:
            self._bring_back(table, change)
            return
        row = self._living(change.row)
        if row is None:
            return
        if change.before is None:
            self._transaction.destroy(table.layout.name, row.ref)
            return
        fields = {
            table.layout.names[position]: change.before.values_[position]
            for position in self._altered(change)
            if position not in table.volatile and (change.row, position) not in self._facts
        }
        if not self._uuid_taken(table, fields):
            self._transaction.update(table.layout.name, row.ref, **fields)

    def _bring_back(self, table: Table, change: Change) -> None:
        assert change.before is not None
        fields = dict(change.before)
        if change.row.ref not in table.rows and not self._uuid_taken(table, fields):
            self._transaction.create(table.layout.name, fields, ref=change.row.ref)
            self._returned[change.row] = change.row.ref

    def _living(self, row: Row) -> Row | None:
        """The row itself, or the one that took its place here; None when neither is there."""
        present = self._tables.by_class[row.class_name].rows.get(row.ref)
        return present if present is row or row in self._returned else None

    def _altered(self, change: Change) -> list[int]:
        if change.before is None or change.after is None:
            return []
        derived = self._tables.by_class[change.row.class_name].derived
        pairs = enumerate(zip(change.before.values_, change.after.values_, strict=True))
        return [position for position, (old, new) in pairs if old != new and position not in derived]

    def _uuid_taken(self, table: Table, fields: dict[str, Any]) -> bool:
        return "uuid" in fields and fields["uuid"] in table.uuids
