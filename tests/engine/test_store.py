"""The database on disk: what comes back, who may open it, what is refused."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.database import Database
from domzero.engine.events import Events, make_token
from domzero.engine.store import GENERATIONS_RESERVED, Batch, Store, StoreError
from domzero.host.clock import ManualClock
from domzero.idl.graph import Graph
from domzero.idl.types import NULL_REF
from tests.engine.toy import GRAPH, contents, create, destroy, disk_idle, raises, update


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


def sql(path: Path, statement: str, *parameters: Any) -> list[Any]:
    """Look into the closed file, or meddle with it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


async def test_every_kind_of_value_comes_back(path: Path) -> None:
    async with opened(path) as database:
        depot = create(database, "depot", name_label="Zürich \U0001f4e6")
        crate = create(
            database,
            "crate",
            name_label="a \x01 b",
            state="sealed",
            allowed_operations=("seal", "open"),
            current_operations={"OpaqueRef:task": "weigh"},
            size=2**63 - 1,
            weight=-(2**63),
            fragile=True,
            packed="20110930T12:00:00Z",
            temperature=-0.1,
            tags=("x", "", "y"),
            other_config={"k": "v", "": ""},
            shelves={1: "one", -2: "two"},
            depot=depot,
        )
        create(database, "parcel", crate=crate, depots=(depot, NULL_REF))
        create(database, "ledger", line="nobody watches")
        before = contents(database)
    async with opened(path) as database:
        assert contents(database) == before
        assert database.findings == ()
        assert database.by_name_label("depot", "Zürich \U0001f4e6") == (depot,)


async def test_changes_and_deletions_come_back_in_the_order_of_creation(path: Path) -> None:
    async with opened(path) as database:
        crates = [create(database, "crate") for _ in range(3)]
        parcels = [create(database, "parcel", crate=crates[0]) for _ in range(3)]
        await database.durable()
        update(database, "crate", crates[0], weight=1)
        destroy(database, "crate", crates[1])
        destroy(database, "parcel", parcels[1])
        await database.durable()
        destroy(database, "crate", create(database, "crate"))
    async with opened(path) as database:
        assert database.refs("crate") == (crates[0], crates[2])
        assert database.get("crate", crates[0], "weight") == 1
        assert database.get("crate", crates[0], "parcels") == (parcels[0], parcels[2])


async def test_a_measurement_is_written_with_the_next_change_of_its_row_or_at_the_end(path: Path) -> None:
    async with opened(path) as database:
        store = database._store
        assert store is not None
        crate, other = create(database, "crate"), create(database, "crate")
        await database.durable()
        update(database, "crate", crate, temperature=21.5)
        update(database, "crate", other, temperature=4.0)
        await database.durable()
        assert [row.fields["temperature"] for row in store.rows()] == [0.0, 0.0]
        update(database, "crate", crate, weight=1)
        await database.durable()
        assert [row.fields["temperature"] for row in store.rows()] == [21.5, 0.0]
    async with opened(path) as database:
        assert database.get("crate", other, "temperature") == 4.0


async def test_what_waited_for_the_disk_goes_there_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = Store.write

    def counting(store: Store, batch: Batch) -> None:
        sizes.append(len(batch.rows))
        write(store, batch)

    monkeypatch.setattr(Store, "write", counting)
    async with opened(path) as database:
        sizes.clear()

        async def change(number: int) -> None:
            create(database, "crate", weight=number)
            await database.durable()

        await asyncio.gather(*(change(number) for number in range(200)))
    assert sum(sizes) == 200
    assert len(sizes) <= 3


async def test_no_generation_is_given_out_twice(path: Path) -> None:
    async with opened(path) as database:
        crate = create(database, "crate")
        for weight in range(5):
            update(database, "crate", crate, temperature=float(weight))
        last = database.generation
    async with opened(path) as database:
        assert database.generation > last
        last = database.generation
    async with opened(path) as database:
        assert database.generation > last


async def test_a_reservation_of_generations_is_renewed_in_time(path: Path) -> None:
    async with opened(path) as database:
        crate = create(database, "crate")
        await database.durable()
        store, start = database._store, database.generation
        assert store is not None
        database.changes.generation += GENERATIONS_RESERVED // 2
        update(database, "crate", crate, temperature=1.0)
        assert database._journal is not None
        await asyncio.sleep(0)
        await disk_idle(database)
        assert reserved(store) > start + GENERATIONS_RESERVED


def reserved(store: Store) -> int:
    return int(store._connection.execute("SELECT reserved FROM state").fetchone()[0])


async def test_a_token_from_before_a_restart_is_too_old(path: Path) -> None:
    async with opened(path) as database:
        create(database, "crate")
        token = make_token(database.generation)
    async with opened(path) as database:
        events = Events(database, ManualClock())
        with raises("EVENTS_LOST"):
            await events.from_("OpaqueRef:me", ("*",), token, 0)
        assert len((await events.from_("OpaqueRef:me", ("*",), "", 0))["events"]) == 1


async def test_the_file_is_the_owners_alone(path: Path) -> None:
    async with opened(path) as database:
        create(database, "crate")
        await database.durable()
        assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
            "state.db": 0o600,
            "state.db.lock": 0o600,
            "state.db-wal": 0o600,
        }


@pytest.mark.slow
async def test_two_cannot_have_the_file(path: Path) -> None:
    probe = (
        "import asyncio, pathlib, sys\n"
        "from domzero.engine.database import Database\n"
        "from domzero.engine.store import StoreError\n"
        "from domzero.host.clock import SystemClock\n"
        "from tests.engine.toy import GRAPH\n"
        "try:\n"
        "    asyncio.run(Database.open(GRAPH, pathlib.Path(sys.argv[1]), SystemClock()))\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    async with opened(path) as database:
        create(database, "crate")
        with pytest.raises(StoreError, match="in use by another process"):
            await Database.open(GRAPH, path, ManualClock())
        other = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", probe, str(path)], capture_output=True, text=True, check=True
        )
        assert other.stdout == f"The database {path} is in use by another process.\n"
        await database.durable()


async def test_a_file_of_another_program_is_left_alone(path: Path) -> None:
    sql(path, "CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match="another program"):
        await Database.open(GRAPH, path, ManualClock())
    assert sql(path, "SELECT name FROM sqlite_master") == [("theirs",)]


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(b"no database" * 100), lambda p: spoil_page(p)])
async def test_a_damaged_file_is_refused(path: Path, spoil: Callable[[Path], None]) -> None:
    async with opened(path) as database:
        for _ in range(100):
            create(database, "crate", name_description="x" * 500)
    spoil(path)
    before = content(path)
    with pytest.raises(StoreError, match="damaged"):
        await Database.open(GRAPH, path, ManualClock())
    assert content(path) == before


def content(path: Path) -> bytes:
    return path.read_bytes()


def spoil_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 5] = bytes(range(256)) * 32
    path.write_bytes(content)


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        await Database.open(GRAPH, tmp_path / "nowhere" / "state.db", ManualClock())


@pytest.mark.parametrize("value", ["'{'", "'[]'", "'null'", "x'7b22ff223a317d'"])
async def test_a_row_that_is_no_json_object_is_named(path: Path, value: str) -> None:
    async with opened(path) as database:
        _, crate, _ = (create(database, "crate") for _ in range(3))
    sql(path, f"UPDATE objects SET fields={value} WHERE ref=?", crate)
    with pytest.raises(StoreError, match=crate):
        await Database.open(GRAPH, path, ManualClock())


async def test_a_batch_that_fails_leaves_nothing(path: Path) -> None:
    async with opened(path) as database:
        create(database, "crate")
        await database.durable()
        store = database._store
        assert store is not None
        good = database.row("crate", database.refs("crate")[0])
        rows: Any = [(good.created + 1, "OpaqueRef:x", "crate", 1, "{}"), (good.created + 2, None, "crate", 1, "{}")]
        with pytest.raises(StoreError, match="could not be written"):
            store.write(Batch(rows, [good.created]))
        assert [row.ref for row in store.rows()] == [good.ref]
