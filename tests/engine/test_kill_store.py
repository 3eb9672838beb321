"""Kill tests: a process that writes is killed at random moments; what it was told is saved must be there afterwards."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from domzero.engine.database import Database
from domzero.host.clock import SystemClock
from tests.engine.toy import GRAPH, create, update

WRITERS = 4
QUICK_KILLS = 16
MANY_KILLS = 200
LIFE = 0.06
"""Seconds that a process writes before it is killed, on average."""


@pytest.fixture(scope="module")
def nursery() -> ForkServerContext:
    """Starts processes that have everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


async def write_for_ever(path: Path, told: Connection) -> None:
    """Count up in one crate per writer, and tell which counts are saved. Never ends.

    In each step the crate's weight and size change together, and a parcel with the same number replaces the last one.
    """
    database = await Database.open(GRAPH, path, SystemClock())
    assert database.findings == (), database.findings

    async def writer(number: int) -> None:
        label = f"writer {number}"
        found = database.by_name_label("crate", label)
        crate = found[0] if found else create(database, "crate", name_label=label)
        count = int(database.get("crate", crate, "weight"))
        while True:
            count += 1
            with database.transaction() as transaction:
                transaction.update("crate", crate, weight=count, size=-count, name_description="x" * (count % 3000))
                for parcel in database.get("crate", crate, "parcels"):
                    transaction.destroy("parcel", parcel)
                transaction.create("parcel", {"crate": crate, "other_config": {"count": str(count)}})
            await database.durable()
            told.send((number, count))

    told.send(None)
    await asyncio.gather(*(writer(number) for number in range(WRITERS)))


def write(path: Path, told: Connection) -> None:
    asyncio.run(write_for_ever(path, told))


def one_life(nursery: ForkServerContext, path: Path, seconds: float) -> dict[int, int]:
    """Run the writers, kill them that long after they began, and give the last count that each of them told."""
    receiver, sender = nursery.Pipe(duplex=False)
    process = nursery.Process(target=write, args=(path, sender), daemon=True)
    process.start()
    sender.close()
    counts: dict[int, int] = {}
    with receiver:
        assert receiver.poll(60)
        assert receiver.recv() is None
        time.sleep(seconds)
        process.kill()
        with suppress(EOFError):
            while True:
                number, count = receiver.recv()
                counts[number] = count
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()
    return counts


async def check(path: Path, told: dict[int, int], lives: int = 1) -> None:
    """Every count that was told is there, nothing is half done, and each life saved at most one step that it did not
    tell. What is found becomes what was told."""
    database = await Database.open(GRAPH, path, SystemClock())
    try:
        assert database.findings == ()
        for number, count in told.items():
            (crate,) = database.by_name_label("crate", f"writer {number}")
            record = database.record("crate", crate)
            assert count <= record["weight"] <= count + lives
            assert record["size"] == -record["weight"]
            (parcel,) = record["parcels"]
            assert database.get("parcel", parcel, "other_config") == {"count": str(record["weight"])}
            told[number] = record["weight"]
        assert len(database.refs("parcel")) <= WRITERS
    finally:
        await database.close()


def kill_often(nursery: ForkServerContext, path: Path, kills: int) -> int:
    """How many steps were acknowledged in all these lives."""
    dice = random.Random(4)
    told: dict[int, int] = {}
    for life in range(kills):
        told.update(one_life(nursery, path, dice.expovariate(1 / LIFE)))
        if life % 2:  # else the next life finds the file as the kill left it
            asyncio.run(check(path, told, lives=2))
    return sum(told.values())


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kills(nursery: ForkServerContext, tmp_path: Path) -> None:
    assert kill_often(nursery, tmp_path / "state.db", QUICK_KILLS) > QUICK_KILLS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_by_many_kills(nursery: ForkServerContext, tmp_path: Path) -> None:
    assert kill_often(nursery, tmp_path / "state.db", MANY_KILLS) > MANY_KILLS


def test_a_loss_would_be_noticed(nursery: ForkServerContext, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    while len(told := one_life(nursery, path, 0.2)) < WRITERS:
        pass
    asyncio.run(check(path, told))
    with pytest.raises(AssertionError):
        asyncio.run(check(path, {number: count + 1000 for number, count in told.items()}))
    asyncio.run(tear(path))
    with pytest.raises(AssertionError):
        asyncio.run(check(path, told))


async def tear(path: Path) -> None:
    database = await Database.open(GRAPH, path, SystemClock())
    for crate in database.refs("crate"):
        update(database, "crate", crate, size=1)
    await database.close()
