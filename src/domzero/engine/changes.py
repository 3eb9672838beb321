"""The generation counter and what changed at which generation, deletions included.

This is what makes events cheap: a reader who knows a generation finds everything that happened since, at a cost that
follows what happened and not what exists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from domzero.engine.row import ChangeOrder, Row
from domzero.idl.records import Record
from domzero.idl.types import Ref

DELETIONS_KEPT = 100_000
"""Deletions remembered; readers who last looked before an older one have to read everything again."""


class Operation(Enum):
    """What happened to an object, in the words of the API's events."""

    ADD = "add"
    MOD = "mod"
    DEL = "del"


class Change(NamedTuple):
    """One row changed by one transaction. `before` is None for an addition, `after` for a deletion.

    `durable` tells that the row has to be written before the transaction counts as saved; changes of measurements and
    of derived sets alone need not.
    """

    row: Row
    before: Record | None
    after: Record | None
    generation: int
    durable: bool

    @property
    def operation(self) -> Operation:
        """Addition, modification or deletion."""
        if self.before is None:
            return Operation.ADD
        return Operation.DEL if self.after is None else Operation.MOD


class Deletion(NamedTuple):
    """A row that is gone."""

    generation: int
    created: int
    class_name: str
    ref: Ref
    uuid: str


class ChangeLog:
    """The order of changes of the rows whose class emits events, and the newest deletions among them."""

    def __init__(self, generation: int, deletions_kept: int = DELETIONS_KEPT) -> None:
        self.generation = generation
        """The newest generation given out."""
        self.floor = generation
        """Questions about what happened since an older generation cannot be answered."""
        self._order = ChangeOrder()
        self._deletions: deque[Deletion] = deque()
        self._deletions_kept = deletions_kept

    def begin(self, generation: int, rows: Iterable[Row]) -> None:
        """Nothing older than this generation is known but these rows, given from the one changed longest ago on."""
        self.generation = self.floor = generation
        self._order.fill(rows)

    def next(self) -> int:
        """A generation above all that were given out."""
        self.generation += 1
        return self.generation

    def changed(self, row: Row) -> None:
        """The row has just got its generation, the newest."""
        self._order.append(row)

    def deleted(self, row: Row, generation: int) -> None:
        """The row has gone at that generation, the newest."""
        self._order.remove(row)
        uuid = str(row.record.get("uuid", ""))
        self._deletions.append(Deletion(generation, row.created, row.class_name, row.ref, uuid))
        if len(self._deletions) > self._deletions_kept:
            self.floor = self._deletions.popleft().generation

    def changed_since(self, generation: int) -> Iterator[Row]:
        """Living rows changed after that generation, newest first."""
        return self._order.since(generation)

    def deleted_since(self, generation: int) -> Iterator[Deletion]:
        """Deletions after that generation, newest first; complete unless the generation is below `floor`."""
        for deletion in reversed(self._deletions):
            if deletion.generation <= generation:
                return
            yield deletion
