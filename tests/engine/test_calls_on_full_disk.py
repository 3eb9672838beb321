"""Calls while the disk takes nothing: an error for each, nothing half done, and the server goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path

import pytest

from domzero.engine.calls import LOCAL, Answer
from domzero.engine.context import Context
from domzero.idl.types import Ref
from tests.engine.conftest import MakeToy
from tests.engine.test_disk_failure import BULK, fill
from tests.engine.toy_calls import NOT_IMPLEMENTED, Toy


@pytest.fixture
async def disk_toy(start: MakeToy, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Toy:
    caplog.set_level(logging.CRITICAL)
    return await start(path=tmp_path / "state.db")


async def test_refused_calls_leave_nothing(disk_toy: Toy) -> None:
    toy = disk_toy
    session = await toy.root()
    lamp = await toy.call("lamp.create", session, {"name_label": "desk", "watts": 1})
    fill(toy.database, full=True)
    refused = await asyncio.gather(
        toy.fails("lamp.set_name_label", session, lamp, BULK),
        toy.fails("session.login_with_password", "root", "", origin=LOCAL),
        toy.fails("Async.lamp.repair", session, lamp),
        toy.fails("lamp.create", session, {"name_label": "bed", "watts": 1}),
    )
    assert {description[0] for description in refused} == {"INTERNAL_ERROR"}
    toy.pace.set()
    await toy.turns()
    fill(toy.database, full=False)
    await toy.call("lamp.set_name_label", session, lamp, "works again")
    assert list(toy.engine.sessions.live) == [session]
    assert toy.database.refs("session") == (session,)
    assert toy.database.refs("lamp") == (lamp,)
    assert toy.engine.tasks.running == {}
    toy.engine.tasks.sweep()
    assert toy.engine.tasks._owners == {}
    assert toy.database.get("lamp", lamp, "current_operations") == {}


async def test_logout_counts_although_the_disk_refused_it(disk_toy: Toy) -> None:
    toy = disk_toy
    session, other = await toy.root(), await toy.root()
    lamp = await toy.call("lamp.create", session, {"name_label": "desk", "watts": 1})
    fill(toy.database, full=True)
    refused = await asyncio.gather(
        toy.fails("lamp.set_name_label", session, lamp, BULK), toy.fails("session.logout", other)
    )
    assert {description[0] for description in refused} == {"INTERNAL_ERROR"}
    assert await toy.fails("lamp.get_watts", other, lamp) == ("SESSION_INVALID", other)
    fill(toy.database, full=False)
    toy.engine.sessions.sweep()
    await toy.database.durable()
    assert toy.database.refs("session") == (session,)


async def test_each_call_learns_of_its_own_loss_and_of_no_other(disk_toy: Toy) -> None:
    """A connection set a task going, whose change was refused while it did something else; then it calls again."""
    toy = disk_toy
    session = await toy.root()
    lamp, other = [await toy.call("lamp.create", session, {"name_label": "desk", "watts": 1}) for _ in range(2)]
    begin = asyncio.Event()

    async def repair(context: Context, self_: Ref) -> Ref:
        await begin.wait()
        with context.database.transaction() as transaction:
            transaction.update("lamp", self_, name_label=BULK)
        await toy.pace.wait()
        return self_

    toy.dispatcher = toy.engine.dispatcher({**toy.implementations(), "lamp.repair": repair}, NOT_IMPLEMENTED)
    task = await toy.call("Async.lamp.repair", session, lamp)
    fill(toy.database, full=True)
    begin.set()
    await toy.until(lambda: toy.database.get("lamp", lamp, "name_label") == BULK)
    await toy.until(lambda: toy.database.get("lamp", lamp, "name_label") == "desk")
    fill(toy.database, full=False)
    await toy.call("lamp.set_name_label", session, other, "saved")
    toy.pace.set()
    await toy.until(lambda: toy.task(task)["status"] != "pending")
    assert toy.task(task)["status"] == "failure"
    assert toy.task(task)["error_info"][0] == "INTERNAL_ERROR"


async def test_a_call_with_nothing_left_to_do_waits_for_the_one_that_did_it(disk_toy: Toy) -> None:
    toy = disk_toy
    session = await toy.root()
    lamp = await toy.call("lamp.create", session, {"name_label": "old", "watts": 1})
    call = "lamp.set_name_label", [session, lamp, "new"], LOCAL
    first, second = toy.dispatcher.call(*call), toy.dispatcher.call(*call)
    assert isinstance(first, Coroutine)
    assert isinstance(second, Coroutine), "what it found done is not on disk yet"
    await asyncio.gather(first, second)
    assert isinstance(toy.dispatcher.call(*call), Answer)
