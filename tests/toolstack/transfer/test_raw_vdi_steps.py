"""A raw disk on its way in that fails, or whose daemon is killed, at each step: nothing is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.host.clock import ManualClock
from domzero.idl.types import RefTo
from domzero.toolstack.transfer.raw_vdi import import_raw
from tests.toolstack.transfer.peers import MemoryPeer, ask
from tests.toolstack.transfer.raw_vdis import DATA, MIB
from tests.toolstack.vm.test_adoption import killed_at
from tests.toolstack.vm.world import World, world

STEPS = ("make the disk", "record the disk", "fill the disk", "complete the disk")
STREAM = DATA.ljust(5 * MIB, b"\0")


async def upload(host: World, *, piece: int = 1 << 18, leaves_after: int | None = None) -> str:
    """A new disk in the default repository."""
    sr = host.get("pool", host.stack.pool, "default_SR")
    peer = MemoryPeer(STREAM, piece=piece, leaves_after=leaves_after)
    return str(await ask(host, import_raw, peer, RefTo("VDI"), sr_id=sr))


async def test_it_fails_at_each_step(host: World) -> None:
    before, files = host.stack.database.refs("VDI"), host.files()
    for wanted in STEPS:
        seen: list[str] = []

        def check(name: str, wanted: str = wanted, seen: list[str] = seen) -> None:
            seen.append(name)
            if name == wanted:
                raise ApiError("INTERNAL_ERROR", "here")

        token = before_step.set(check)
        try:
            with pytest.raises(ApiError, match="here"):
                await upload(host)
        finally:
            before_step.reset(token)
        assert seen[-1] == wanted
        assert (host.stack.database.refs("VDI"), host.files()) == (before, files)


@pytest.mark.parametrize("after", [0, 1, 3 * MIB, len(STREAM) - 1])
async def test_the_client_goes_away(host: World, after: int) -> None:
    before, files = host.stack.database.refs("VDI"), host.files()
    with pytest.raises(Exception, match="went away"):
        await upload(host, leaves_after=after)
    assert (host.stack.database.refs("VDI"), host.files()) == (before, files)


async def test_a_complete_one_has_no_mark(host: World) -> None:
    vdi = await upload(host, piece=1000)
    assert host.row("VDI", vdi)["other_config"] == {}
    assert host.row("VDI", vdi)["current_operations"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2, 3, 4])
async def test_the_daemon_is_killed(tmp_path: Path, number: int) -> None:
    """Between making and recording, a disk is on its medium without a row, as any new one: the next scan shows it."""
    (tmp_path / "first").mkdir()
    clock, copy = ManualClock(), tmp_path / "copy"
    async with world(tmp_path / "first", database=tmp_path / "first" / "state.db", clock=clock) as host:
        before, files = set(host.stack.database.refs("VDI")), set(host.files())
        await host.stack.database.durable()
        killed = await killed_at(number, tmp_path / "first", copy, upload(host))
    assert killed == (number < len(STEPS))
    if killed:
        async with world(copy, database=copy / "state.db", clock=clock) as host:
            assert set(host.stack.database.refs("VDI")) == before
            assert set(host.files()) == files
