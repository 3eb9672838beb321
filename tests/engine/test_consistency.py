"""Older, newer and inconsistent databases: what is migrated, repaired, reported, refused."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from domzero.datamodel.graph import GRAPH as REAL
from domzero.engine.database import Database
from domzero.engine.migrations import Migration
from domzero.engine.store import StoredRow, StoreError
from domzero.host.clock import ManualClock
from domzero.idl.graph import Graph
from domzero.idl.model import RUNTIME, Field
from domzero.idl.types import NULL_REF, STRING
from tests.engine.toy import CLASSES, CRATE, GRAPH, contents, create, update

GONE = "OpaqueRef:gone"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@asynccontextmanager
async def opened(path: Path, graph: Graph = GRAPH, **options: Any) -> AsyncIterator[Database]:
    database = await Database.open(graph, path, ManualClock(), **options)
    try:
        yield database
    finally:
        await database.close()


def meddle(path: Path, ref: str, **fields: Any) -> None:
    """Change stored fields behind the program's back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        stored = orjson.loads(connection.execute("SELECT fields FROM objects WHERE ref=?", (ref,)).fetchone()[0])
        changed = orjson.dumps(stored | fields).decode()
        connection.execute("UPDATE objects SET fields=? WHERE ref=?", (changed, ref))


async def repaired(path: Path, **options: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What is found after a start, and the report; a second start must find the same and nothing to report."""
    async with opened(path, **options) as database:
        first = contents(database)
        findings = [(finding.ref, finding.text) for finding in database.findings]
    async with opened(path, **options) as database:
        assert contents(database) == first
        assert database.findings == ()
    return first, findings


async def test_references_to_what_is_gone_become_null_or_leave_their_set(path: Path) -> None:
    async with opened(path) as database:
        depot = create(database, "depot")
        crate = create(database, "crate", depot=GONE)
        parcel = create(database, "parcel", crate=NULL_REF, depots=(depot, GONE))
    found, findings = await repaired(path)
    assert found[crate]["depot"] == NULL_REF
    assert found[parcel]["depots"] == (depot,)
    assert found[depot]["parcels"] == (parcel,)
    assert [(ref, text.partition(":")[0]) for ref, text in findings] == [(crate, "depot"), (parcel, "depots")]


async def test_references_in_maps_leave_their_map(path: Path) -> None:
    async with opened(path, REAL) as database:
        blob = create(database, "blob")
        network = create(database, "network", blobs={"kept": blob, "lost": GONE, "none": NULL_REF})
    async with opened(path, REAL) as database:
        assert database.get("network", network, "blobs") == {"kept": blob, "none": NULL_REF}
        assert [finding.ref for finding in database.findings] == [network]


async def test_what_belongs_to_something_gone_goes_too(path: Path) -> None:
    async with opened(path) as database:
        crate = create(database, "crate", depot=GONE)
        parcel = create(database, "parcel", crate=crate)
        free = create(database, "parcel", crate=NULL_REF)
    found, findings = await repaired(path, owners=("crate.depot", "parcel.crate"))
    assert set(found) == {free}
    assert [ref for ref, _ in findings] == [crate, parcel]


async def test_a_uuid_stored_twice_is_replaced_in_the_younger_object(path: Path) -> None:
    async with opened(path) as database:
        old, young, bare = (create(database, "crate") for _ in range(3))
        uuid = database.get("crate", old, "uuid")
    meddle(path, young, uuid=uuid)
    meddle(path, bare, uuid="")
    found, findings = await repaired(path)
    assert found[old]["uuid"] == uuid
    assert len({row["uuid"] for row in found.values()}) == 3
    assert [ref for ref, _ in findings] == [young, bare]


async def test_a_reference_stored_twice_leaves_the_older_object(path: Path) -> None:
    async with opened(path) as database:
        old, young = create(database, "crate", weight=1), create(database, "crate", weight=2)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE objects SET ref=? WHERE ref=?", (old, young))
    found, findings = await repaired(path)
    assert {ref: row["weight"] for ref, row in found.items()} == {old: 1}
    assert [ref for ref, _ in findings] == [old]


@pytest.mark.parametrize(
    ("field", "value", "default"),
    [
        ("name_label", 5, ""),
        ("state", "ajar", "open"),
        ("state", [], "open"),
        ("weight", "5", 0),
        ("weight", True, 0),
        ("weight", 1.5, 0),
        ("fragile", 1, False),
        ("temperature", None, 0.0),
        ("tags", "a", ()),
        ("tags", [1], ()),
        ("other_config", [], {}),
        ("other_config", {"a": 1}, {}),
        ("shelves", {"x": "y"}, {}),
        ("depot", None, NULL_REF),
    ],
)
async def test_a_value_of_another_type_gets_its_default(path: Path, field: str, value: Any, default: Any) -> None:
    async with opened(path) as database:
        crate = create(database, "crate", name_description="stays")
    meddle(path, crate, **{field: value})
    found, findings = await repaired(path)
    assert found[crate][field] == default
    assert found[crate]["name_description"] == "stays"
    assert [(ref, text.partition(":")[0]) for ref, text in findings] == [(crate, field)]


async def test_fields_that_came_get_defaults_and_fields_that_went_are_dropped(path: Path) -> None:
    async with opened(path) as database:
        crate = create(database, "crate", name_label="a", weight=5)
    fields = (*(f for f in CRATE.fields if f.name != "weight"), Field("colour", STRING, RUNTIME, "x", "New.", "red"))
    newer = Graph(
        (dataclasses.replace(CRATE, fields=fields), *CLASSES[1:]), GRAPH.errors.values(), GRAPH.roles.values()
    )
    async with opened(path, newer) as database:
        assert database.findings == ()
        assert database.get("crate", crate, "colour") == "red"
        assert "weight" not in database.record("crate", crate)
        update(database, "crate", crate, name_label="b")
    async with opened(path) as database:
        assert database.get("crate", crate, "name_label") == "b"
        assert database.get("crate", crate, "weight") == 0


async def test_objects_of_an_unknown_class_are_ignored_and_kept(path: Path) -> None:
    async with opened(path) as database:
        ledger = create(database, "ledger", line="precious")
        crate = create(database, "crate")
    smaller = Graph(CLASSES[:3], GRAPH.errors.values(), GRAPH.roles.values())
    async with opened(path, smaller) as database:
        assert [(finding.class_name, finding.ref) for finding in database.findings] == [("ledger", ledger)]
        update(database, "crate", crate, weight=1)
    async with opened(path) as database:
        assert database.get("ledger", ledger, "line") == "precious"


def renamed(rows: Iterable[StoredRow]) -> Iterable[StoredRow]:
    return [
        row._replace(fields=row.fields | {"name_label": "now " + row.fields["name_label"]})
        if row.class_name == "crate"
        else row
        for row in rows
    ]


def without_depots(rows: Iterable[StoredRow]) -> Iterable[StoredRow]:
    return (row for row in rows if row.class_name != "depot")


FIRST = Migration(1, "Names are different.", renamed)
SECOND = Migration(2, "Depots are no more.", without_depots)


async def test_migrations_are_applied_once_and_in_order(path: Path) -> None:
    async with opened(path) as database:
        crate = create(database, "crate", name_label="a")
        create(database, "depot")
    for _ in range(2):
        async with opened(path, migrations=(FIRST,)) as database:
            assert database.get("crate", crate, "name_label") == "now a"
            assert len(database.refs("depot")) == 1
    for _ in range(2):
        async with opened(path, migrations=(FIRST, SECOND)) as database:
            assert database.get("crate", crate, "name_label") == "now a"
            assert database.refs("depot") == ()


async def test_a_new_database_needs_no_migration(path: Path) -> None:
    async with opened(path, migrations=(FIRST, SECOND)) as database:
        crate = create(database, "crate", name_label="a")
    async with opened(path, migrations=(FIRST, SECOND)) as database:
        assert database.get("crate", crate, "name_label") == "a"


async def test_a_newer_database_is_refused(path: Path) -> None:
    async with opened(path, migrations=(FIRST, SECOND)):
        pass
    with pytest.raises(StoreError, match=r"newer version .* format is 2, this program knows formats up to 1"):
        await Database.open(GRAPH, path, ManualClock(), migrations=(FIRST,))
    async with opened(path, migrations=(FIRST, SECOND)):
        pass


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    def breaking(rows: Iterable[StoredRow]) -> Iterable[StoredRow]:
        for row in rows:
            yield row._replace(fields={})
            raise ZeroDivisionError

    async with opened(path) as database:
        create(database, "crate", name_label="a")
        create(database, "crate", name_label="b")
        before = contents(database)
    with pytest.raises(ZeroDivisionError):
        await Database.open(GRAPH, path, ManualClock(), migrations=(Migration(1, "Breaks.", breaking),))
    async with opened(path) as database:
        assert contents(database) == before


async def test_migrations_with_gaps_are_a_mistake(path: Path) -> None:
    with pytest.raises(ValueError, match="numbered"):
        await Database.open(GRAPH, path, ManualClock(), migrations=(SECOND,))
