"""Merges of layers in the background: when, by whom, and how they give way. The layers themselves are the drivers'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domzero.host.hypervisor.spec import LayerPull
from domzero.host.storage.protocol import LiveMerge, Merge, Progress, Repository, StorageError
from domzero.host.storage.sim import SimStorage
from domzero.idl.types import Ref
from domzero.toolstack.storage.merging import (
    DEFAULT_SPEED,
    INTERVAL,
    LONGEST_PAUSE,
    REST,
    SETTLING,
    URGENT,
    keep_merging,
    merge_all,
    speed_of,
)
from domzero.toolstack.storage.repositories import attached
from tests.toolstack.devices.test_vdi import default_sr, disk, running_with_disk
from tests.toolstack.vm.world import DRIVE, World


class Layered(SimStorage):
    """Storage with layers to be merged. A merge that no machine carries out lasts until it is let end."""

    left: list[Merge]
    log: list[str]
    speeds: list[int]
    may_end: asyncio.Event
    fails = False

    async def merges(self, repository: Repository) -> list[Merge]:
        return list(self.left)

    async def merge(self, repository: Repository, merge: Merge, progress: Progress, live: LiveMerge | None) -> None:
        self.log.append(f"{merge.upper} begins")
        progress(0.5)
        try:
            if self.fails:
                raise StorageError(200, "a bad sector")
            if live is None:
                await self.may_end.wait()
            else:
                self.speeds.append(live.speed)
                await live.pull(LayerPull(Path("/upper"), None, None, live.speed), progress)
        except BaseException:
            self.log.append(f"{merge.upper} ends early")
            raise
        self.left.remove(merge)
        self.log.append(f"{merge.upper} is done")


@pytest.fixture
async def layered(host: World) -> Layered:
    storage = Layered(host.clock, host.stack.settings.state_dir / "storage")
    storage.left, storage.log, storage.speeds, storage.may_end = [], [], [], asyncio.Event()
    _, repository = attached(host.stack, default_sr(host))
    await storage.attach(repository)
    host.stack.storage = {**host.stack.storage, "file": storage}
    return storage


def of(host: World, *vdis: Ref, name: str = "top") -> Merge:
    return Merge(name, f"below {name}", tuple(host.get("VDI", vdi, "location") for vdi in vdis), 1 << 20)


def merging_tasks(host: World) -> list[Ref]:
    rows = host.stack.database.rows("task")
    return [ref for ref, row in rows.items() if row.record["name_label"].startswith("Merging layers of ")]


@asynccontextmanager
async def merging(host: World) -> AsyncIterator[asyncio.Task[bool]]:
    """A pass over the default repository, begun; it is over at the end."""
    work = asyncio.ensure_future(merge_all(host.stack, default_sr(host)))
    await host.settle()
    try:
        yield work
        await host.over(work, 2 * LONGEST_PAUSE, step=LONGEST_PAUSE)
    finally:
        work.cancel()
        await asyncio.wait({work})


async def test_a_merge_is_a_task_to_be_watched(host: World, layered: Layered) -> None:
    layered.left = [of(host, await disk(host))]
    async with merging(host):
        (task,) = merging_tasks(host)
        record = host.row("task", task)
        assert record["name_label"] == "Merging layers of Local storage"
        assert (record["progress"], "cancel" in record["allowed_operations"]) == (0.5, True)
        layered.may_end.set()
    assert (layered.log, merging_tasks(host)) == (["top begins", "top is done"], [])


async def test_one_after_the_other_with_a_pause(host: World, layered: Layered) -> None:
    vdi = await disk(host)
    layered.left = [of(host, vdi, name="first"), of(host, vdi, name="second")]
    async with merging(host):
        await host.clock.advance(10)
        layered.may_end.set()
        await host.settle()
        assert layered.log == ["first begins", "first is done"]
        await host.clock.advance(9)
        assert len(layered.log) == 2, "the pause is as long as the merge was"
        await host.clock.advance(1)
        await host.settle()
        assert layered.log[2:] == ["second begins", "second is done"]


async def test_no_pause_while_many_are_to_be_done(host: World, layered: Layered) -> None:
    vdi = await disk(host)
    layered.left = [of(host, vdi, name=f"layer {number}") for number in range(URGENT + 2)]
    layered.may_end.set()
    async with merging(host):
        await host.settle()
        assert len(layered.left) == URGENT - 2


async def test_whoever_cancels_it_has_peace_for_a_while(host: World, layered: Layered) -> None:
    layered.left = [of(host, await disk(host))]
    keeper = asyncio.ensure_future(keep_merging(host.stack))
    await host.settle()
    await host.call("task.cancel", merging_tasks(host)[0])
    await host.settle()
    assert (layered.log, merging_tasks(host)) == (["top begins", "top ends early"], [])
    await host.over(asyncio.ensure_future(host.clock.sleep(REST - INTERVAL)), REST, step=INTERVAL / 2)
    assert len(layered.log) == 2
    await host.over(asyncio.ensure_future(host.clock.sleep(2 * INTERVAL)), REST, step=INTERVAL / 2)
    assert layered.log[2:] == ["top begins"]
    keeper.cancel()
    await asyncio.wait({keeper})
    assert layered.log[3:] == ["top ends early"], "the end of the daemon waits for the end of the work"


@pytest.mark.parametrize(
    ("method", "params"),
    [("VDI.snapshot", [{}]), ("VDI.clone", [{}]), ("VDI.resize", [str(16 << 20)]), ("VDI.destroy", [])],
)
async def test_whoever_needs_the_disk_has_it(host: World, layered: Layered, method: str, params: list[Any]) -> None:
    vdi = await disk(host)
    layered.left = [of(host, vdi)]
    async with merging(host) as work:
        await host.over(host.begin(method, vdi, *params), 2, step=0.1)
        assert layered.log == ["top begins", "top ends early"]
        assert not await host.over(work, 5), "giving way is no cancellation"


async def test_a_machine_that_starts_does_not_wait(host: World, layered: Layered) -> None:
    vm = await host.machine(disks=1, cards=0)
    vdi = host.get("VBD", host.get("VM", vm, "VBDs")[0], "VDI")
    layered.left = [of(host, vdi)]
    async with merging(host):
        await host.call("VM.start", vm, False, False)
        assert layered.log == ["top begins", "top ends early"]


async def test_an_unplugged_repository_is_left(host: World, layered: Layered) -> None:
    layered.left = [of(host, await disk(host))]
    async with merging(host):
        await host.call("PBD.unplug", host.get("SR", default_sr(host), "PBDs")[0])
        assert layered.log == ["top begins", "top ends early"]


async def test_the_machine_that_has_the_disk_does_it(host: World, layered: Layered) -> None:
    vm, _, vdi = await running_with_disk(host)
    layered.left = [of(host, vdi)]
    await host.call("pool.add_to_other_config", host.stack.pool, "merge-bytes-per-second", "1000")
    async with merging(host):
        assert layered.log == ["top begins", "top is done"]
    assert layered.speeds == [1000]
    assert host.power_state(vm) == "Running"


async def slow_pull(host: World, layered: Layered) -> tuple[Ref, Ref, Ref]:
    """Machine, drive and disk, which the machine needs an hour to merge the layers of."""
    vm = await host.machine(disks=1, cards=0, other_config={"sim:delay-pull-layer": "3600"})
    await host.call("VM.start", vm, False, False)
    (vbd,) = host.get("VM", vm, "VBDs")
    vdi = host.get("VBD", vbd, "VDI")
    layered.left = [of(host, vdi)]
    return vm, vbd, vdi


async def test_a_machine_can_be_worked_on_meanwhile(host: World, layered: Layered) -> None:
    vm, _, _ = await slow_pull(host, layered)
    async with merging(host):
        for method in ("VM.pause", "VM.unpause"):
            await host.call(method, vm)
        await host.clock.advance(1800)
        assert layered.log == ["top begins"]
        assert host.get("task", merging_tasks(host)[0], "progress") == pytest.approx(0.5, abs=0.11)
        await host.clock.advance(1800)
        await host.settle()
        assert layered.log == ["top begins", "top is done"]


@pytest.mark.parametrize("operation", ["VBD.unplug", "VM.suspend", "VM.hard_shutdown", "VM.snapshot", "VM.checkpoint"])
async def test_what_needs_the_layers_as_they_are_ends_it(host: World, layered: Layered, operation: str) -> None:
    vm, vbd, _ = await slow_pull(host, layered)
    params: dict[str, list[Any]] = {
        "VBD.unplug": [vbd], "VM.snapshot": [vm, "name", []], "VM.checkpoint": [vm, "name"],
    }  # fmt: skip
    async with merging(host):
        await host.call(operation, *params.get(operation, [vm]))
        if operation == "VM.hard_shutdown":
            await host.clock.advance(3600)
            await host.settle()
        assert layered.log == ["top begins", "top ends early"]


async def test_disks_that_several_machines_have_open_wait(host: World, layered: Layered) -> None:
    _, _, first = await running_with_disk(host)
    second, vbd, other = await running_with_disk(host)
    layered.left = [of(host, first, other)]
    async with merging(host):
        assert layered.log == []
    await host.call("VBD.unplug", vbd)
    async with merging(host):
        assert layered.log == ["top begins", "top is done"]
    assert host.power_state(second) == "Running"


async def test_a_drive_that_only_reads_does_not_write_layers(host: World, layered: Layered) -> None:
    vm = await host.machine(disks=0, cards=0)
    vdi = await disk(host)
    await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "0", "mode": "RO"})
    await host.call("VM.start", vm, False, False)
    layered.left = [of(host, vdi)]
    async with merging(host):
        assert layered.log == []


async def test_one_that_fails_does_not_keep_the_others(host: World, layered: Layered) -> None:
    vdi = await disk(host)
    layered.left = [of(host, vdi, name="first"), of(host, vdi, name="second")]
    layered.fails = True
    async with merging(host):
        await host.clock.advance(5)
    assert layered.log == ["first begins", "first ends early", "second begins", "second ends early"]


async def test_a_deletion_has_the_repository_looked_at(host: World, layered: Layered) -> None:
    keeper = asyncio.ensure_future(keep_merging(host.stack))
    kept, gone = await disk(host), await disk(host)
    await host.settle()
    layered.left = [of(host, kept)]
    layered.may_end.set()
    await host.call("VDI.destroy", gone)
    await host.settle()
    assert layered.log == []
    await host.clock.advance(SETTLING)
    await host.settle()
    assert layered.log == ["top begins", "top is done"]
    keeper.cancel()
    await asyncio.wait({keeper})


async def test_a_repository_can_be_spared(host: World, layered: Layered) -> None:
    layered.left = [of(host, await disk(host))]
    await host.call("SR.add_to_other_config", default_sr(host), "auto-coalesce", "false")
    async with merging(host):
        assert layered.log == []


async def test_disks_that_nobody_knows_wait(host: World, layered: Layered) -> None:
    layered.left = [Merge("top", "below", ("unknown",), 1)]
    async with merging(host):
        assert layered.log == []


@pytest.mark.parametrize(
    ("written", "speed"),
    [
        ("", DEFAULT_SPEED),
        ("0", 0),
        ("5", 5),
        ("-1", DEFAULT_SPEED),
        ("fast", DEFAULT_SPEED),
        ("9" * 99, DEFAULT_SPEED),
    ],
)
def test_speeds(written: str, speed: int) -> None:
    assert speed_of({"merge-bytes-per-second": written}) == speed
