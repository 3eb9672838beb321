"""One object of the database in its current version, and the order in which objects changed last.

There are some 50,000 rows in a large pool, so a row is six slots and nothing else. The order of changes is a list
threaded through the rows themselves: moving a row to its end costs the same whatever the number of rows, and reading
what changed since a point costs what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from domzero.idl.records import Record
from domzero.idl.types import Ref


class Row:
    """An object. `record` is replaced when it changes; a row that was destroyed keeps its last one.

    `generation` is the database's generation at the last committed change, `created` the one at which the object came
    to be: a number no other row ever has, also the row's key on disk. Rows compare by identity.
    """

    __slots__ = ("created", "generation", "newer", "older", "record", "ref")

    def __init__(self, ref: Ref, record: Record, created: int, generation: int) -> None:
        self.ref = ref
        self.record = record
        self.created = created
        self.generation = generation
        self.newer: Row | None = None
        self.older: Row | None = None

    @property
    def class_name(self) -> str:
        """The name of the object's class."""
        return self.record.layout.name

    def __repr__(self) -> str:
        return f"<{self.class_name} {self.ref} at {self.generation}>"


class ChangeOrder:
    """Rows from the one changed longest ago to the newest. Every row's generation is above that of those before it."""

    __slots__ = ("_newest",)

    def __init__(self) -> None:
        self._newest: Row | None = None

    def fill(self, rows: Iterable[Row]) -> None:
        """Put rows, the newest last, into an order that has none."""
        older = self._newest
        for row in rows:
            row.older = older
            if older is not None:
                older.newer = row
            older = row
        self._newest = older

    def append(self, row: Row) -> None:
        """Make the row the newest, wherever it was before."""
        if self._newest is row:
            return
        self.remove(row)
        row.older = self._newest
        if self._newest is not None:
            self._newest.newer = row
        self._newest = row

    def remove(self, row: Row) -> None:
        """Take the row out; nothing happens when it is not in."""
        older, newer = row.older, row.newer
        if older is not None:
            older.newer = newer
        if newer is not None:
            newer.older = older
        elif self._newest is row:
            self._newest = older
        row.older = row.newer = None

    def since(self, generation: int) -> Iterator[Row]:
        """Rows changed after that generation, newest first. The order must not change while this is read."""
        row = self._newest
        while row is not None and row.generation > generation:
            yield row
            row = row.older
