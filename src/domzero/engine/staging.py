"""Another database, made beside the one in use to take its place at the next start.

Everything here blocks and is made for one thread. What comes from elsewhere is written row by row into a file of this
program's own making, and read on trial as a start would read it, before anybody relies on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from domzero.engine.consistency import Finding
from domzero.engine.loading import Loader
from domzero.engine.migrations import Migration
from domzero.engine.store import (
    APPLICATION_ID,
    GENERATIONS_RESERVED,
    TABLES,
    Batch,
    EncodedRow,
    Store,
    StoreError,
)
from domzero.engine.tables import Tables
from domzero.idl.graph import Graph

ROWS_TOGETHER = 1024
MOST_ROWS = 20_000_000
LARGEST_VALUE = 64 << 20
"""Bytes of a value in a file from elsewhere."""


class Staging:
    """The file that is being made: whole after `finish`, and free for others after `close`.

    `newest` is a generation above all that clients may have seen: those of the new database are above it.
    """

    def __init__(
        self, graph: Graph, path: Path, migrations: Sequence[Migration], owners: Collection[str],
        new_uuid: Callable[[], str], newest: int,
    ) -> None:  # fmt: skip
        self._graph = graph
        self._migrations = migrations
        self._owners = owners
        self._new_uuid = new_uuid
        self._newest = newest
        self._created = 0
        self._waiting: list[EncodedRow] = []
        self._store = Store(path)

    @property
    def version(self) -> int:
        """The format that this program writes; see `migrations`."""
        return len(self._migrations)

    def add(self, ref: str, class_name: str, fields: str) -> None:
        """Add an object with its stored form (see `codec`). Raises `StoreError`."""
        self._created += 1
        if self._created > MOST_ROWS:
            raise StoreError(f"there are more than {MOST_ROWS} objects")
        self._waiting.append(EncodedRow(self._created, ref, class_name, self._created, fields))
        if len(self._waiting) >= ROWS_TOGETHER:
            self._write()

    def _write(self) -> None:
        self._store.write(Batch(self._waiting, ()))
        self._waiting = []

    def finish(self, version: int) -> tuple[Tables, Sequence[Finding]]:
        """Read what was added as a start would, in the format of that version; what it came to, and what was repaired.

        Raises `StoreError` where a start would.
        """
        self._write()
        self._store.set_version(version)
        tables = Tables(self._graph)
        loader = Loader(self._graph, tables, self._migrations, self._owners, self._new_uuid)
        loader.load(self._store)
        self._store.write(Batch((), (), max(self._newest, self._created) + GENERATIONS_RESERVED))
        self._store.fold()
        return tables, loader.findings

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()


class ForeignFile:
    """A database file that somebody sent. Nothing in it is believed: not its tables, which must be exactly ours, nor
    its pages, which SQLite checks first (its documentation's “Defense Against The Dark Arts”).

    Raises `StoreError`, here and while rows are read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        except sqlite3.Error as error:
            raise StoreError(f"the database cannot be opened: {error}") from error
        try:
            self._check()
        except sqlite3.Error as error:
            self._connection.close()
            raise StoreError(f"the database is damaged: {error}") from error
        except BaseException:
            self._connection.close()
            raise

    def _check(self) -> None:
        connection = self._connection
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "query_only=ON"):
            connection.execute(f"PRAGMA {pragma}")
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError("the database is of another program")
        ours = {statement for statement in TABLES if statement.startswith("CREATE")}
        if {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")} != ours:
            raise StoreError("the database has other tables than it should")
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreError(f"the database is damaged: {found}")

    @property
    def version(self) -> int:
        """The number of the last migration that was applied."""
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Reference, class and stored form of every object, in the order of their creation."""
        try:
            found = self._connection.execute("SELECT ref, class, fields FROM objects ORDER BY created")
            for ref, class_name, fields in found:
                if not (isinstance(ref, str) and isinstance(class_name, str) and isinstance(fields, str)):
                    raise StoreError("the database has an object that is none")
                yield ref, class_name, fields
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise StoreError(f"the database is damaged: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
