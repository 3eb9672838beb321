"""How stored objects are brought from one version of the datamodel to the next.

Fields that come or go need no migration: unknown ones are dropped and missing ones get their default when the database
is read. A migration is for what that cannot say: a field that was renamed, a value that means something else now, a
class that was split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from domzero.engine.store import Store, StoredRow, StoreError


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. `number` counts from 1 without gaps; `convert` is a pure function over all stored objects, given and
    returned in the order of their creation."""

    number: int
    doc: str
    convert: Callable[[Iterable[StoredRow]], Iterable[StoredRow]]


def migrate(store: Store, migrations: Sequence[Migration]) -> tuple[int, ...]:
    """Apply the migrations that the store has not seen, all in one SQLite transaction; gives their numbers.

    Raises `StoreError` when the store was written by a version that knows more migrations than these.
    """
    numbers = tuple(migration.number for migration in migrations)
    if numbers != tuple(range(1, len(numbers) + 1)):
        raise ValueError(f"migrations must be numbered from 1 without gaps, not {numbers}")
    version = store.version
    if version > len(numbers):
        raise StoreError(
            f"The database was written by a newer version of this program (its format is {version}, this program knows "
            f"formats up to {len(numbers)}); start that version, or restore a backup."
        )
    due = migrations[version:]
    if due:
        rows: Iterable[StoredRow] = [] if store.is_empty() else store.rows()
        for migration in due:
            rows = migration.convert(rows)
        store.replace_all(list(rows), len(numbers))
    return numbers[version:]
