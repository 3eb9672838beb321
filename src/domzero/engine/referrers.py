"""Who refers to what, for reference fields from which the model derives no set."""

from __future__ import annotations

from collections.abc import Sequence

from domzero.engine.changes import Change
from domzero.engine.database import Database
from domzero.idl.types import NULL_REF, Ref


class Referrers:
    """An index of one reference field, true to every transaction that has ended. Made once the database is open."""

    def __init__(self, database: Database, cls: str, field: str) -> None:
        self._cls = cls
        self._field = field
        self._by_target: dict[Ref, dict[Ref, None]] = {}
        for ref, row in database.rows(cls).items():
            self._add(row.record[field], ref)
        database.subscribe(self._follow)

    def of(self, target: Ref) -> tuple[Ref, ...]:
        """The objects that refer to the target, which may be gone; none for null."""
        return tuple(self._by_target.get(target, ()))

    def _follow(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.row.class_name != self._cls:
                continue
            before = NULL_REF if change.before is None else change.before[self._field]
            after = NULL_REF if change.after is None else change.after[self._field]
            if before != after:
                self._remove(before, change.row.ref)
                self._add(after, change.row.ref)

    def _add(self, target: Ref, ref: Ref) -> None:
        if target != NULL_REF:
            self._by_target.setdefault(target, {})[ref] = None

    def _remove(self, target: Ref, ref: Ref) -> None:
        there = self._by_target.get(target)
        if there is not None:
            there.pop(ref, None)
            if not there:
                del self._by_target[target]
