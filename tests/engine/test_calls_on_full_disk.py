"""Calls while the disk takes nothing: an error for each, nothing half done, and the server goes on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from domzero.engine.calls import LOCAL
from tests.engine.conftest import MakeToy
from tests.engine.test_disk_failure import BULK, fill
from tests.engine.toy_calls import Toy


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
