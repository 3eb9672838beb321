"""A disk that refuses: nothing half done, everybody told, and work goes on when the disk does."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.events import Events
from domzero.engine.journal import RETRY_SECONDS
from domzero.host.clock import ManualClock
from domzero.idl.types import NULL_REF
from tests.engine.toy import GRAPH, contents, create, destroy, disk_idle, update

BULK = "x" * 200_000
ME = "OpaqueRef:session"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Database]:
    caplog.set_level(logging.CRITICAL)
    database = await Database.open(GRAPH, tmp_path / "state.db", clock)
    yield database
    await database.close()


def fill(database: Database, *, full: bool) -> None:
    """Make the disk full, as SQLite sees it, or give it room."""
    assert database._store is not None
    connection = database._store._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages if full else 1_000_000}")


async def refused(database: Database) -> None:
    with pytest.raises(ApiError) as caught:
        await database.durable()
    assert caught.value.code == "INTERNAL_ERROR"
    assert "could not be written" in caught.value.params[0]


async def on_disk(database: Database, path: Path) -> dict[str, Any]:
    """What another start finds."""
    await database.close()
    database = await Database.open(GRAPH, path, ManualClock())
    try:
        assert database.findings == ()
        return contents(database)
    finally:
        await database.close()


async def test_everything_not_yet_saved_is_taken_back(database: Database) -> None:
    depot = create(database, "depot")
    crate = create(database, "crate", name_label="old", depot=depot)
    gone = create(database, "parcel", crate=crate)
    await database.durable()
    before = contents(database)
    fill(database, full=True)
    update(database, "crate", crate, name_label=BULK, depot=NULL_REF)
    update(database, "crate", crate, name_label="newest")
    create(database, "crate", name_description=BULK)
    destroy(database, "parcel", gone)
    destroy(database, "depot", depot)
    await refused(database)
    assert contents(database) == before
    assert database.by_name_label("crate", "old") == (crate,)
    assert database.tables.orphans == {}
    fill(database, full=False)
    update(database, "crate", crate, name_label="works again")
    await database.durable()
    after = contents(database)
    assert database._store is not None
    assert await on_disk(database, database._store._path) == after


async def test_watchers_end_up_with_the_truth(database: Database, clock: ManualClock) -> None:
    events = Events(database, clock)
    crate, gone = create(database, "crate", name_label="old"), create(database, "crate")
    await database.durable()
    start = (await events.from_(ME, ("*",), "", 0))["token"]
    fill(database, full=True)
    update(database, "crate", crate, name_label="wrong")
    destroy(database, "crate", gone)
    new = create(database, "crate", name_description=BULK)
    wrong = await events.from_(ME, ("*",), start, 0)
    assert [(event["operation"], event["ref"]) for event in wrong["events"]] == [
        ("mod", crate),
        ("del", gone),
        ("add", new),
    ]
    await refused(database)
    right = await events.from_(ME, ("*",), wrong["token"], 0)
    assert {(event["operation"], event["ref"]) for event in right["events"]} == {
        ("mod", crate),
        ("add", gone),
        ("del", new),
    }
    assert next(e for e in right["events"] if e["ref"] == crate)["snapshot"]["name_label"] == "old"
    late = await events.from_(ME, ("*",), start, 0)
    assert {(event["operation"], event["ref"]) for event in late["events"]} == {("mod", crate), ("mod", gone)}
    fill(database, full=False)


async def test_everyone_who_waits_is_told(database: Database) -> None:
    crate = create(database, "crate")
    await database.durable()
    fill(database, full=True)

    async def change(number: int) -> None:
        await asyncio.sleep(0)
        update(database, "crate", crate, name_description=BULK, weight=number + 1)
        await refused(database)

    await asyncio.gather(*(change(number) for number in range(20)))
    assert database.get("crate", crate, "weight") == 0
    await database.durable()
    fill(database, full=False)


async def test_who_asks_late_is_told_as_well_and_once(database: Database) -> None:
    fill(database, full=True)
    create(database, "crate", name_description=BULK)
    await disk_idle(database)
    assert database.refs("crate") == ()
    await asyncio.create_task(database.durable(), context=Context())
    await refused(database)
    await database.durable()
    fill(database, full=False)


async def test_facts_stay_and_are_saved_when_the_disk_works(database: Database, clock: ManualClock) -> None:
    crate = create(database, "crate", name_label="old")
    other = create(database, "crate")
    await database.durable()
    fill(database, full=True)
    update(database, "crate", crate, name_label="wish", name_description=BULK)
    with database.transaction(observed=True) as transaction:
        transaction.update("crate", crate, state="sealed")
        transaction.update("crate", other, weight=7)
        fact = transaction.create("parcel", {"crate": crate})
    update(database, "crate", other, weight=8, size=9)
    update(database, "crate", crate, temperature=3.5)
    await refused(database)
    assert database.get("crate", crate, "name_label") == "old"
    assert database.get("crate", crate, "name_description") == ""
    assert database.get("crate", crate, "state") == "sealed"
    assert database.get("crate", crate, "temperature") == 3.5
    assert database.get("crate", crate, "parcels") == (fact,)
    assert database.get("crate", other, "weight") == 7
    assert database.get("crate", other, "size") == 0
    await database.durable()
    fill(database, full=False)
    store = database._store
    assert store is not None
    assert all(row.ref != fact for row in store.rows())
    await clock.advance(RETRY_SECONDS)
    await disk_idle(database)
    assert any(row.ref == fact for row in store.rows())
    after = contents(database)
    assert await on_disk(database, store._path) == after


async def test_a_fact_about_something_that_was_taken_back_goes_with_it(database: Database) -> None:
    fill(database, full=True)
    crate = create(database, "crate", name_description=BULK)
    with database.transaction(observed=True) as transaction:
        transaction.update("crate", crate, state="sealed")
    await refused(database)
    assert database.find("crate", crate) is None
    fill(database, full=False)


async def test_a_fact_wins_over_the_wish_it_came_before(database: Database) -> None:
    crate = create(database, "crate", weight=1)
    await database.durable()
    fill(database, full=True)
    update(database, "crate", crate, weight=2, name_description=BULK)
    with database.transaction(observed=True) as transaction:
        transaction.update("crate", crate, weight=3)
    await refused(database)
    assert database.get("crate", crate, "weight") == 3
    fill(database, full=False)


async def test_what_came_back_to_life_is_saved_once(database: Database) -> None:
    crate = create(database, "crate", weight=1)
    parcel = create(database, "parcel", crate=crate)
    await database.durable()
    fill(database, full=True)
    update(database, "crate", crate, weight=2)
    destroy(database, "crate", crate)
    create(database, "crate", name_description=BULK)
    await refused(database)
    assert database.get("crate", crate, "weight") == 1
    assert database.get("crate", crate, "parcels") == (parcel,)
    fill(database, full=False)
    update(database, "crate", crate, weight=4)
    await database.durable()
    store = database._store
    assert store is not None
    assert [(row.ref, row.fields.get("weight")) for row in store.rows()] == [(parcel, None), (crate, 4)]


async def test_closing_tells_when_something_could_not_be_saved(tmp_path: Path, clock: ManualClock) -> None:
    database = await Database.open(GRAPH, tmp_path / "other.db", clock)
    fill(database, full=True)
    create(database, "crate", name_description=BULK)
    with pytest.raises(ApiError, match="could not be written"):
        await database.close()
    database = await Database.open(GRAPH, tmp_path / "other.db", clock)
    assert database.refs("crate") == ()
    await database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # a failed test may leave files open


@pytest.mark.root
async def test_a_really_full_disk(small_disk: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    path, ballast = small_disk / "state.db", small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    database = await Database.open(GRAPH, path, clock)
    saved: dict[str, Any] = {}
    refusals = 0
    for number in range(400):
        crate = create(database, "crate", weight=number, name_description=str(number) * 4000)
        try:
            await database.durable()
        except ApiError:
            refusals += 1
            assert database.find("crate", crate) is None
            if refusals == 3:
                ballast.unlink()
        else:
            saved[crate] = number
        if refusals > 6:
            break
    assert refusals > 6
    assert len(saved) > 10
    assert {ref: row["weight"] for ref, row in contents(database).items()} == saved
    await database.close()
    database = await Database.open(GRAPH, path, clock)
    assert {ref: row["weight"] for ref, row in contents(database).items()} == saved
    await database.close()
