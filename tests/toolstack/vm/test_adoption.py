"""What a new daemon makes of what the old one left, at whatever moment it was killed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.host.clock import ManualClock
from domzero.host.hypervisor.protocol import RunState
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskSource, DiskSpec
from domzero.idl.types import Ref
from tests.toolstack.vm.world import World, world

NULL = "OpaqueRef:NULL"


class Restarts:
    """Hosts one after the other on the same directory and clock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[World]:
        database = self.directory / "state.db"
        async with world(self.directory, database=database, clock=self.clock) as running:
            yield running


@pytest.fixture
def restarts(tmp_path: Path) -> Restarts:
    return Restarts(tmp_path)


async def test_running_machines_go_on(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        vm, asleep = await host.machine(), await host.machine()
        await host.call("VM.start", vm, False, False)
        await host.call("VM.start", asleep, True, False)
        before = host.row("VM", vm)
    async with restarts.daemon() as host:
        after = host.row("VM", vm)
        assert {name for name in before if before[name] != after[name]} == set()
        assert (host.power_state(asleep), len(host.domids())) == ("Paused", 2)
        await host.call("VM.unpause", asleep)
        await host.stack.hypervisor.destroy(after["domid"])
        await host.until_state(vm, "Halted")


async def test_domain_numbers_are_never_used_again(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        vm = await host.machine()
        await host.call("VM.start", vm, False, False)
        first = host.get("VM", vm, "domid")
        await host.call("VM.hard_shutdown", vm)
    async with restarts.daemon() as host:
        await host.call("VM.start", vm, False, False)
        assert host.get("VM", vm, "domid") > first


async def test_a_machine_that_ended_meanwhile_is_halted(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        vm = await host.machine()
        await host.call("VM.start", vm, False, False)
        domid = host.get("VM", vm, "domid")
    (restarts.directory / "domains" / f"{domid}.json").unlink()
    async with restarts.daemon() as host:
        record = host.row("VM", vm)
        assert (record["power_state"], record["domid"], record["consoles"]) == ("Halted", -1, ())
        assert host.get("VBD", record["VBDs"][0], "currently_attached") is False
        await host.call("VM.start", vm, False, False)


async def test_a_domain_of_nobody_is_ended(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        vm = await host.machine(disks=0)
        await host.call("VM.start", vm, False, False)
        await host.stack.database.durable()
        with host.stack.database.transaction() as transaction:
            transaction.destroy("VM", vm)
    async with restarts.daemon() as host:
        assert host.domids() == set()


async def test_disks_that_went_in_or_out_when_the_daemon_was_killed(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        vm = await host.machine(disks=2)
        await host.call("VM.start", vm, False, False)
        second = host.get("VM", vm, "VBDs")[1]
        await host.call("VBD.unplug", second)
        domid, before = host.get("VM", vm, "domid"), host.row("VBD", second)
        spec = DiskSpec(1, DiskKind.DISK, DiskSource(Path("/sr/disk"), DiskFormat.RAW))
        await host.hypervisor.plug_disk(domid, spec)
    async with restarts.daemon() as host:
        after = host.row("VBD", second)
        assert (before["currently_attached"], after["currently_attached"], after["device"]) == (False, True, "xvdb")
        await host.hypervisor.unplug_disk(domid, 1)
    async with restarts.daemon() as host:
        assert host.row("VBD", second) == before


Prepare = Callable[[World], Awaitable[Ref]]


async def halted(host: World) -> Ref:
    return await host.machine()


async def running(host: World) -> Ref:
    vm = await halted(host)
    await host.call("VM.start", vm, False, False)
    return vm


async def suspended(host: World) -> Ref:
    vm = await running(host)
    await host.call("VM.suspend", vm)
    return vm


KILLED: dict[str, tuple[Prepare, tuple[Any, ...], set[str]]] = {
    "start": (halted, ("VM.start", "it", False, False), {"Halted", "Running"}),
    "hard_shutdown": (running, ("VM.hard_shutdown", "it"), {"Running", "Halted"}),
    "hard_reboot": (running, ("VM.hard_reboot", "it"), {"Running"}),
    "clean_reboot": (running, ("VM.clean_reboot", "it"), {"Running"}),
    "suspend": (running, ("VM.suspend", "it"), {"Running", "Suspended"}),
    "resume": (suspended, ("VM.resume", "it", False, False), {"Suspended", "Running"}),
    "snapshot": (running, ("VM.snapshot", "it", "name", []), {"Running"}),
    "checkpoint": (running, ("VM.checkpoint", "it", "name"), {"Running"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
async def test_a_daemon_killed_at_any_step_is_followed_by_one_that_agrees(tmp_path: Path, name: str) -> None:
    prepare, (method, *arguments), outcomes = KILLED[name]
    for number in range(20):
        first, second = Restarts(tmp_path / f"{number}"), Restarts(tmp_path / f"{number} again")
        first.directory.mkdir()
        async with first.daemon() as host:
            vm = await prepare(host)
            params = [vm if each == "it" else each for each in arguments]
            if not await killed_at(number, first.directory, second.directory, host.call(method, *params)):
                break
        async with second.daemon() as host:
            await assert_agrees(host, vm, outcomes)
    assert 0 < number < 19


async def killed_at(number: int, directory: Path, copy: Path, call: Awaitable[Any]) -> bool:
    """Copy everything on disk when the step of that number is about to begin; False when the call has fewer steps.

    The copy is what a daemon leaves that is killed there: the database's file and its log, domains, disks.
    """
    seen: list[str] = []

    def check(name: str) -> None:
        seen.append(name)
        if len(seen) == number + 1:
            shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*-shm"))
            raise ApiError("INTERNAL_ERROR", "killed here")

    token = before_step.set(check)
    try:
        await call
    except ApiError:
        return True
    finally:
        before_step.reset(token)
    return False


async def assert_agrees(host: World, vm: Ref, outcomes: set[str]) -> None:
    """Rows, domains, disks and images fit together, and the machine can be used."""
    record = host.row("VM", vm)
    state = record["power_state"]
    assert state in outcomes
    assert record["scheduled_to_be_resident_on"] == NULL
    assert record["current_operations"] == {}
    if state == "Running":
        assert host.domids() == {record["domid"]}
        assert (await host.stack.hypervisor.status(record["domid"])).state is RunState.RUNNING
        assert len(record["consoles"]) == 2
    else:
        assert (host.domids(), record["domid"], record["consoles"]) == (set(), -1, ())
    attached = {host.get("VBD", vbd, "currently_attached") for vbd in record["VBDs"]}
    assert attached == {state != "Halted"}
    images = {ref for ref, row in host.stack.database.rows("VDI").items() if row.record["type"] == "suspend"}
    wanted = {row.record["suspend_VDI"] for row in host.stack.database.rows("VM").values()} - {NULL}
    assert images == wanted
    assert (record["suspend_VDI"] != NULL) == (state == "Suspended")
    if state == "Suspended":
        await host.call("VM.resume", vm, False, False)
    if state == "Halted":
        await host.call("VM.start", vm, False, False)
    await host.call("VM.hard_shutdown", vm)
