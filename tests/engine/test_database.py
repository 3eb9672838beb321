"""The database in memory: what can be read, what a transaction changes, what is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH as REAL
from domzero.engine.changes import Change
from domzero.engine.database import Database
from domzero.host.clock import ManualClock
from domzero.idl.model import Durability
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import NEVER, NULL_REF
from tests.engine.toy import GRAPH, AbandonedError, contents, create, destroy, raises, update


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    database = await Database.open(GRAPH, None, ManualClock())
    yield database
    await database.close()


def test_a_new_object_gets_defaults_and_a_uuid(database: Database) -> None:
    ref = create(database, "crate", size=7)
    record = database.record("crate", ref)
    assert ref.startswith("OpaqueRef:")
    assert len(record["uuid"]) == 36
    assert database.by_uuid("crate", record["uuid"]) == ref
    assert record["size"] == 7
    assert record["state"] == "open"
    assert record["packed"] == NEVER
    assert record["other_config"] is EMPTY_MAP
    assert record["parcels"] == ()


def test_reading_what_is_not_there(database: Database) -> None:
    crate = create(database, "crate")
    with raises("HANDLE_INVALID", "crate", "OpaqueRef:none"):
        database.record("crate", "OpaqueRef:none")
    with raises("HANDLE_INVALID", "parcel", crate):
        database.get("parcel", crate, "uuid")
    with raises("UUID_INVALID", "crate", "none"):
        database.by_uuid("crate", "none")
    assert database.find("crate", "OpaqueRef:none") is None
    assert database.by_name_label("crate", "none") == ()
    with pytest.raises(KeyError):
        database.get("crate", crate, "colour")


def test_names_are_indexed_in_the_order_of_creation(database: Database) -> None:
    first, second, third = (create(database, "crate", name_label="a") for _ in range(3))
    assert database.by_name_label("crate", "a") == (first, second, third)
    update(database, "crate", second, name_label="b")
    assert database.by_name_label("crate", "a") == (first, third)
    assert database.by_name_label("crate", "b") == (second,)
    destroy(database, "crate", first)
    assert database.by_name_label("crate", "a") == (third,)
    assert database.by_name_label("depot", "a") == ()


def test_a_taken_uuid_is_refused_and_a_changed_one_is_found(database: Database) -> None:
    one, two = create(database, "crate", uuid="u1"), create(database, "crate", uuid="u2")
    with raises("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "crate", "uuid", "u1"):
        create(database, "crate", uuid="u1")
    with raises("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "crate", "uuid", "u1"):
        update(database, "crate", two, uuid="u1")
    create(database, "depot", uuid="u1")
    update(database, "crate", one, uuid="u3")
    assert database.by_uuid("crate", "u3") == one
    with raises("UUID_INVALID", "crate", "u1"):
        database.by_uuid("crate", "u1")


def test_a_record_that_was_read_never_changes(database: Database) -> None:
    ref = create(database, "crate", name_label="before", tags=("x",))
    record = database.record("crate", ref)
    update(database, "crate", ref, name_label="after", tags=("y",))
    assert record["name_label"] == "before"
    assert record["tags"] == ("x",)
    assert database.get("crate", ref, "name_label") == "after"


def test_a_map_given_by_the_caller_is_the_callers_own(database: Database) -> None:
    given = {"a": "1"}
    ref = create(database, "crate", other_config=given)
    given["a"] = "2"
    assert database.get("crate", ref, "other_config") == {"a": "1"}


def test_the_block_sees_its_own_writes_and_an_exception_takes_all_back(database: Database) -> None:
    depot = create(database, "depot")
    crate = create(database, "crate", name_label="kept", depot=depot)
    before, generation = contents(database), database.generation
    record = database.record("crate", crate)
    with suppress(AbandonedError), database.transaction() as transaction:
        parcel = transaction.create("parcel", {"crate": crate})
        assert database.get("crate", crate, "parcels") == (parcel,)
        transaction.update("crate", crate, name_label="lost", depot=NULL_REF)
        assert database.by_name_label("crate", "lost") == (crate,)
        transaction.destroy("depot", depot)
        transaction.destroy("crate", crate)
        assert database.find("crate", crate) is None
        raise AbandonedError
    assert contents(database) == before
    assert database.record("crate", crate) is record
    assert database.row("crate", crate).generation <= generation
    assert database.by_name_label("crate", "kept") == (crate,)
    assert database.tables.orphans == {}


def test_a_nested_block_joins_the_outer_one_and_can_fail_alone(database: Database) -> None:
    published = record_changes(database)
    with database.transaction() as outer:
        kept = outer.create("crate", {})
        with suppress(AbandonedError), database.transaction() as inner:
            assert inner is outer
            inner.create("crate", {})
            inner.update("crate", kept, name_label="lost")
            raise AbandonedError
        assert published == []
        outer.update("crate", kept, weight=3)
    assert database.refs("crate") == (kept,)
    assert database.get("crate", kept, "name_label") == ""
    assert [(change.row.ref, change.operation.value) for batch in published for change in batch] == [(kept, "add")]
    with pytest.raises(RuntimeError, match="over"):
        outer.update("crate", kept, weight=4)


async def test_a_block_that_awaits_is_found_out(database: Database) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def careless() -> None:
        with database.transaction():
            entered.set()
            await leave.wait()

    task = asyncio.create_task(careless())
    await entered.wait()
    with pytest.raises(RuntimeError, match="must not await"), database.transaction():
        pass
    leave.set()
    await task
    create(database, "crate")


def test_writing_what_is_there_already_is_no_change(database: Database) -> None:
    ref = create(database, "crate", name_label="a", other_config={"k": "v"})
    published = record_changes(database)
    generation, record = database.generation, database.record("crate", ref)
    update(database, "crate", ref, name_label="a", other_config={"k": "v"}, tags=())
    with database.transaction() as transaction:
        transaction.update("crate", ref, name_label="b")
        transaction.update("crate", ref, name_label="a")
        transaction.destroy("crate", transaction.create("crate", {}))
    assert published == []
    assert database.row("crate", ref).generation <= generation
    assert database.record("crate", ref) == record


def test_touching_makes_a_new_generation_of_the_same_record(database: Database) -> None:
    ref = create(database, "crate")
    record, generation = database.record("crate", ref), database.generation
    with database.transaction() as transaction:
        other = transaction.create("crate", {})
        touched = transaction.touch("crate", ref)
    assert touched > generation
    assert database.row("crate", ref).generation == touched
    assert database.record("crate", ref) is record
    assert [row.ref for row in database.changes.changed_since(generation)] == [other, ref]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name_label", 5),
        ("name_label", "\ud800"),
        ("size", "5"),
        ("size", True),
        ("size", 2**63),
        ("fragile", 1),
        ("temperature", "warm"),
        ("temperature", float("nan")),
        ("state", "ajar"),
        ("tags", ["a"]),
        ("tags", (1,)),
        ("other_config", {"a": 1}),
        ("other_config", (("a", "b"),)),
        ("current_operations", {"task": "juggle"}),
        ("shelves", {"1": "a"}),
        ("depot", None),
        ("parcels", ()),
    ],
)
def test_values_of_another_type_are_refused_where_they_are_written(database: Database, field: str, value: Any) -> None:
    ref = create(database, "crate")
    before = contents(database)
    with pytest.raises(TypeError, match=field):
        update(database, "crate", ref, **{field: value})
    assert contents(database) == before


def test_unknown_fields_and_classes_are_refused(database: Database) -> None:
    ref = create(database, "crate")
    with pytest.raises(KeyError):
        update(database, "crate", ref, colour="red")
    with pytest.raises(KeyError):
        create(database, "crate", colour="red")
    with pytest.raises(KeyError):
        create(database, "balloon")


def test_a_record_can_be_the_start_of_a_copy(database: Database) -> None:
    crate = create(database, "crate", name_label="a", weight=3)
    create(database, "parcel", crate=crate)
    copy = create(database, "crate", **{**database.record("crate", crate), "uuid": ""})
    assert database.get("crate", copy, "weight") == 3
    assert database.get("crate", copy, "parcels") == ()
    assert database.get("crate", copy, "uuid") != database.get("crate", crate, "uuid")


def test_derived_sets_follow_single_references_in_the_order_of_creation(database: Database) -> None:
    one, two = create(database, "crate"), create(database, "crate")
    first, second, third = (create(database, "parcel", crate=one) for _ in range(3))
    assert database.get("crate", one, "parcels") == (first, second, third)
    before = database.row("crate", one).generation
    update(database, "parcel", second, crate=two)
    assert database.get("crate", one, "parcels") == (first, third)
    assert database.get("crate", two, "parcels") == (second,)
    assert database.row("crate", one).generation > before
    update(database, "parcel", second, crate=one)
    assert database.get("crate", one, "parcels") == (first, second, third)
    destroy(database, "parcel", first)
    assert database.get("crate", one, "parcels") == (second, third)
    update(database, "parcel", third, crate=NULL_REF)
    assert database.get("crate", one, "parcels") == (second,)


def test_derived_sets_follow_sets_of_references(database: Database) -> None:
    one, two = create(database, "depot"), create(database, "depot")
    parcel = create(database, "parcel", depots=(one, two, NULL_REF))
    assert database.get("depot", one, "parcels") == (parcel,)
    update(database, "parcel", parcel, depots=(two, two))
    assert database.get("depot", one, "parcels") == ()
    assert database.get("depot", two, "parcels") == (parcel,)
    destroy(database, "parcel", parcel)
    assert database.get("depot", two, "parcels") == ()


def test_a_derived_set_is_complete_whoever_comes_first(database: Database) -> None:
    early = create(database, "parcel", crate="OpaqueRef:later")
    earlier = database.row("parcel", early).created
    late = create(database, "parcel", crate="OpaqueRef:later")
    assert database.row("parcel", late).created > earlier
    with database.transaction() as transaction:
        crate = transaction.create("crate", {}, ref="OpaqueRef:later")
    assert database.get("crate", crate, "parcels") == (early, late)
    destroy(database, "crate", crate)
    destroy(database, "parcel", early)
    third = create(database, "parcel", crate=crate)
    with database.transaction() as transaction:
        transaction.create("crate", {}, ref=crate)
    assert database.get("crate", crate, "parcels") == (late, third)
    with raises("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "crate", "_ref", crate), database.transaction() as transaction:
        transaction.create("crate", {}, ref=crate)


def test_equal_references_share_one_string(database: Database) -> None:
    crate = create(database, "crate")
    parcel = create(database, "parcel", crate="".join(crate))
    assert database.get("parcel", parcel, "crate") is database.row("crate", crate).ref


def test_views_and_selections(database: Database) -> None:
    view = database.rows("crate")
    heavy = create(database, "crate", weight=9)
    create(database, "crate")
    assert len(view) == 2
    assert database.refs("crate")[0] == heavy
    assert database.select("crate", 'field "weight" = "9"') == {heavy: database.record("crate", heavy)}


async def test_the_real_datamodel_has_a_table_for_every_class_that_has_objects() -> None:
    database = await Database.open(REAL, None, ManualClock())
    assert set(database.layouts) == {c.name for c in REAL.classes.values() if c.durability is Durability.DURABLE}
    for cls in database.layouts:
        ref = create(database, cls)
        update(database, cls, ref, **{n: v for n, v in database.record(cls, ref).items() if not derived(cls, n)})
    await database.close()


def derived(cls: str, name: str) -> bool:
    return REAL.fields[cls][name].inverse is not None


async def test_without_a_file_everything_is_durable_at_once(database: Database) -> None:
    create(database, "crate")
    await database.durable()


def record_changes(database: Database) -> list[list[Change]]:
    published: list[list[Change]] = []
    database.subscribe(lambda changes: published.append(list(changes)))
    return published
