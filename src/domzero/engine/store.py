"""The database's file: SQLite in WAL mode, one row of JSON per object.

Everything here blocks and runs in the database's writer thread. A batch is one SQLite transaction, on disk when
`write` returns (`synchronous=FULL`); when it raises, nothing of it is there. Sources: SQLite's documentation on WAL,
`PRAGMA locking_mode`, `PRAGMA synchronous` and atomic commit.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from domzero.durable import sync

APPLICATION_ID = 0x646F6D30
"""Marks the file as ours: “dom0” in ASCII."""

GENERATIONS_RESERVED = 1_000_000
"""Generations that may be given out after a start without writing to disk that they were."""

TABLES = (
    "CREATE TABLE objects (created INTEGER PRIMARY KEY, ref TEXT NOT NULL, class TEXT NOT NULL, "
    "generation INTEGER NOT NULL, fields TEXT NOT NULL)",
    "CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), reserved INTEGER NOT NULL)",
    "INSERT INTO state VALUES (1, 0)",
)
_UPSERT = "INSERT OR REPLACE INTO objects (created, ref, class, generation, fields) VALUES "
_ROWS_PER_STATEMENT = 64
_SELECT = "SELECT created, ref, class, generation, CAST(fields AS BLOB) FROM objects ORDER BY created"
"""The fields as bytes, so that what is no text is found by the decoder."""
_ROWS_PER_READ = 512
"""What is read together: enough for each step to pay, few enough to stay in the processor's cache."""


class StoreError(Exception):
    """The file cannot be used, or a batch was refused. The text is a sentence for the operator."""


class StoredRow(NamedTuple):
    """An object as it is on disk."""

    created: int
    ref: str
    class_name: str
    generation: int
    fields: dict[str, Any]


class StoredGroup(NamedTuple):
    """Objects of one class as they are on disk: the same place in each sequence belongs to the same object."""

    class_name: str
    created: Sequence[int]
    refs: Sequence[str]
    generations: Sequence[int]
    fields: Sequence[dict[str, Any]]


class EncodedRow(NamedTuple):
    """An object on its way to disk."""

    created: int
    ref: str
    class_name: str
    generation: int
    fields: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written together: rows by key, keys to delete, and a new reservation of generations if one is due."""

    rows: Sequence[EncodedRow]
    deleted: Sequence[int]
    reserved: int | None = None


class Store:
    """The open file. Nobody else can open it meanwhile. Raises `StoreError` when it cannot be had."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading: sqlite3.Cursor | None = None
        self._lock = _claim(path)
        try:
            self._connection = self._connect()
        except BaseException:
            os.close(self._lock)
            raise

    def _connect(self) -> sqlite3.Connection:
        try:
            self._create_private()
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"The database {self._path} cannot be opened: {error}.") from error
        try:
            self._prepare(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            raise StoreError(f"The database {self._path} cannot be used: {error}.") from error
        except sqlite3.Error as error:
            connection.close()
            raise StoreError(f"The database {self._path} is damaged: {error}.") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _create_private(self) -> None:
        # The database holds sessions and secrets, so the file is the owner's alone from its first byte.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        sync(self._path.parent)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Alone with the file, SQLite can keep the WAL's index in its own memory.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != APPLICATION_ID and (owner or tables):
            raise StoreError(f"{self._path} is a database of another program.")
        if not tables:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            for statement in TABLES:
                connection.execute(statement)
            connection.execute("COMMIT")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    @property
    def version(self) -> int:
        """The number of the last migration that was applied; 0 for a new file."""
        return self._pragma("user_version")

    def is_empty(self) -> bool:
        """Whether no object was ever stored."""
        return self._connection.execute("SELECT 1 FROM objects LIMIT 1").fetchone() is None

    def damage(self) -> str | None:
        """SQLite's own check of the file's structure: what is wrong, or None."""
        try:
            found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            return str(error)
        return None if found == "ok" else str(found)

    def reserve(self, newest: int) -> int:
        """A generation above all that were given out before the file was opened; those after it are reserved.

        `newest` is the newest that an object has.
        """
        reserved = int(self._connection.execute("SELECT reserved FROM state").fetchone()[0])
        start = max(reserved, newest)
        self.write(Batch((), (), start + GENERATIONS_RESERVED))
        return start

    def rows(self) -> Iterator[StoredRow]:
        """All objects in the order of their creation. Raises `StoreError` for one that is no JSON object."""
        self._reading = self._connection.execute(_SELECT)
        for created, ref, class_name, generation, encoded in self._reading:
            yield StoredRow(created, ref, class_name, generation, self._fields(class_name, ref, encoded))

    def groups(self) -> Iterator[StoredGroup]:
        """The same objects in groups of one class: those of a class in the order of their creation. Raises alike."""
        self._reading = self._connection.execute(_SELECT)
        while rows := self._reading.fetchmany(_ROWS_PER_READ):
            by_class: dict[str, list[tuple[Any, ...]]] = {}
            for row in rows:
                by_class.setdefault(row[2], []).append(row)
            for class_name, members in by_class.items():
                created, refs, _, generations, encoded = zip(*members, strict=True)
                yield StoredGroup(class_name, created, refs, generations, self._all_fields(class_name, refs, encoded))

    def _all_fields(self, class_name: str, refs: Sequence[str], encoded: Sequence[bytes]) -> list[dict[str, Any]]:
        try:
            fields = list(map(orjson.loads, encoded))
        except orjson.JSONDecodeError:
            fields = []
        if set(map(type, fields)) == {dict}:
            return fields
        return [self._fields(class_name, *one) for one in zip(refs, encoded, strict=True)]

    def _fields(self, class_name: str, ref: str, encoded: bytes) -> dict[str, Any]:
        try:
            fields = orjson.loads(encoded)
        except orjson.JSONDecodeError as error:
            fields = error
        if type(fields) is not dict:
            raise StoreError(f"Object {ref} of class {class_name} in {self._path} is damaged: {fields}.")
        return fields

    def replace_all(self, rows: Iterable[StoredRow], version: int) -> None:
        """Put these rows in place of all there are and set the version, in one transaction."""
        encoded = [EncodedRow(*row[:4], orjson.dumps(row.fields).decode()) for row in rows]
        self._transact(("DELETE FROM objects", f"PRAGMA user_version={int(version)}"), Batch(encoded, ()))

    def set_version(self, version: int) -> None:
        """Say which migrations the objects need no more. Raises `StoreError`."""
        self._transact((f"PRAGMA user_version={int(version)}",), Batch((), ()))

    def fold(self) -> None:
        """Move everything that was written into the one file. Raises `StoreError`."""
        try:
            busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            raise StoreError(f"The database {self._path} could not be written: {error}.") from error
        if busy:
            raise StoreError(f"The database {self._path} is in use.")

    def copy_to(self, path: Path) -> None:
        """Write everything to a new file, by SQLite's online backup. Raises `StoreError`."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.close(descriptor)
            copy = sqlite3.connect(path)
            try:
                self._connection.backup(copy)
                # One file without its write-ahead log beside it.
                copy.execute("PRAGMA journal_mode=DELETE")
            finally:
                copy.close()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"The database {self._path} could not be copied: {error}.") from error

    def write(self, batch: Batch) -> None:
        """Put a batch on disk. Raises `StoreError` when that fails; then the file holds what it held before."""
        self._transact((), batch)

    def close(self) -> None:
        """Let go of the file; what is in the WAL is moved into it where the disk allows."""
        if self._reading is not None:
            self._reading.close()  # a reading that was broken off would keep the file open
        self._connection.close()
        _release(self._lock)

    def _transact(self, statements: Iterable[str], batch: Batch) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                self._connection.execute(statement)
            self._execute(batch)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise StoreError(f"The database {self._path} could not be written: {error}.") from error

    def _execute(self, batch: Batch) -> None:
        # Each statement lets go of the interpreter's lock and has to win it back from a busy event loop, which may
        # take milliseconds: few statements with many rows each.
        if batch.deleted:
            self._connection.executemany("DELETE FROM objects WHERE created=?", [(key,) for key in batch.deleted])
        for start in range(0, len(batch.rows), _ROWS_PER_STATEMENT):
            rows = batch.rows[start : start + _ROWS_PER_STATEMENT]
            statement = _UPSERT + ",".join(["(?,?,?,?,?)"] * len(rows))
            self._connection.execute(statement, [value for row in rows for value in row])
        if batch.reserved is not None:
            self._connection.execute("UPDATE state SET reserved=?", (batch.reserved,))


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Keep everybody else from a database file that is not open here. Raises `StoreError` when it is in use."""
    lock = _claim(path)
    try:
        yield
    finally:
        _release(lock)


def _claim(path: Path) -> int:
    try:
        return _lock(path.with_name(f"{path.name}.lock"))
    except BlockingIOError as error:
        raise StoreError(f"The database {path} is in use by another process.") from error
    except OSError as error:
        raise StoreError(f"The database {path} cannot be opened: {error}.") from error


def _release(lock: int) -> None:
    # Closing alone would not do while a child that is being started still has the descriptor.
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock until it is closed. Raises `BlockingIOError` when somebody else holds it.

    SQLite's own locks do not do: POSIX drops them as soon as this process closes any other descriptor of the file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
