"""The rows of the host's network as they were, kept in a file while a change of them is on probation.

The file is on disk before the change begins and goes when it is proven; one that is found at a start tells of a daemon
that ended in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from domzero.durable import replace, sync
from domzero.engine.database import Database
from domzero.engine.transactions import Transaction
from domzero.idl.types import Ref

CLASSES = ("PIF", "Bond", "VLAN")
FILE_NAME = "network-before.json"
Rows = Mapping[str, Mapping[Ref, Mapping[str, Any]]]
"""Class → reference → fields."""


def take(database: Database, host: Ref) -> Rows:
    """The rows as they are now, the networks of all cards, and the host's address."""
    rows = {cls: {ref: _fields(database, cls, ref) for ref in database.refs(cls)} for cls in CLASSES}
    cards = {ref: {"network": row.record["network"]} for ref, row in database.rows("VIF").items()}
    return {**rows, "VIF": cards, "host": {host: {"address": database.get("host", host, "address")}}}


def moved_cards(database: Database, rows: Rows) -> list[Ref]:
    """The cards that are on another network than they were."""
    kept = rows.get("VIF", {})
    now = database.rows("VIF")
    return [ref for ref, fields in kept.items() if ref in now and now[ref].record["network"] != fields["network"]]


def restore(database: Database, transaction: Transaction, rows: Rows) -> None:
    """Make the rows what they were: those that came since are removed, those that went are back."""
    for cls in CLASSES:
        for ref in database.refs(cls):
            if ref not in rows[cls]:
                transaction.destroy(cls, ref)
    for cls, kept in rows.items():
        for ref, fields in kept.items():
            values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
            if database.find(cls, ref) is not None:
                transaction.update(cls, ref, **values)
            elif cls in CLASSES:
                transaction.create(cls, values, ref=ref)
    for ref in database.refs("PIF"):
        if database.find("PIF_metrics", database.get("PIF", ref, "metrics")) is None:
            transaction.update("PIF", ref, metrics=transaction.create("PIF_metrics", {}))


def _fields(database: Database, cls: str, ref: Ref) -> dict[str, Any]:
    """What of a row can be written."""
    derived = {field.name for field in database.layouts[cls].fields if field.inverse}
    return {name: value for name, value in database.record(cls, ref).items() if name not in derived}


def write(directory: Path, rows: Rows) -> None:
    """Keep the rows; on disk when this returns. Blocks."""
    replace(directory / FILE_NAME, orjson.dumps(rows))


def read(directory: Path) -> Rows | None:
    """What is kept, None when nothing is or when it cannot be understood. Blocks."""
    try:
        rows = orjson.loads((directory / FILE_NAME).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return rows if isinstance(rows, dict) and set(CLASSES) <= rows.keys() else None


def remove(directory: Path) -> None:
    """Keep nothing any more; on disk when this returns. Blocks."""
    (directory / FILE_NAME).unlink(missing_ok=True)
    sync(directory)
