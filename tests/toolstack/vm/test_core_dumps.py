"""What is kept of a guest that crashed, whatever happens while it is being written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.host.clock import ManualClock
from domzero.toolstack.vm import core_dumps
from domzero.toolstack.vm.core_dumps import LABEL, MOST_KEPT
from tests.toolstack.vm.world import World, world

NULL = "OpaqueRef:NULL"


async def crashing(host: World, action: str, **config: str) -> str:
    """A machine whose guest has just crashed."""
    vm = await host.machine(actions_after_crash=action, other_config={"sim:crash-after": "100", **config})
    await host.call("VM.start", vm, False, False)
    await host.clock.advance(101)
    return vm


def dumps(host: World) -> list[dict[str, Any]]:
    return [host.row("crashdump", ref) for ref in host.stack.database.refs("crashdump")]


def cores(host: World) -> list[dict[str, Any]]:
    rows = host.stack.database.rows("VDI")
    return [host.row("VDI", ref) for ref, row in rows.items() if row.record["type"] == "crashdump"]


def told(host: World) -> list[str]:
    return [row.record["name"] for row in host.stack.database.rows("message").values()]


async def task_of(host: World) -> str:
    async with asyncio.timeout(20):
        while True:
            for ref, row in host.stack.database.rows("task").items():
                if row.record["name_label"] == LABEL and row.record["allowed_operations"] == ("cancel", "destroy"):
                    return ref
            await asyncio.sleep(0.001)


async def test_its_memory_is_kept_and_the_machine_halts(host: World) -> None:
    vm = await crashing(host, "coredump_and_destroy")
    await host.until_state(vm, "Halted")
    await host.settle()
    (dump,) = dumps(host)
    vdi = host.row("VDI", dump["VDI"])
    assert (dump["VM"], vdi["type"], vdi["managed"], vdi["read_only"]) == (vm, "crashdump", True, True)
    assert vdi["SR"] == host.get("pool", host.stack.pool, "crash_dump_SR")
    assert vdi["other_config"] == {"vm_uuid": host.get("VM", vm, "uuid")}
    assert host.get("VM", vm, "crash_dumps") == host.get("VDI", dump["VDI"], "crash_dumps")
    (file,) = (host.stack.settings.state_dir / "storage").rglob(f"*{vdi['location']}*")
    assert file.read_bytes().startswith(b"\x7fELF")
    assert vdi["virtual_size"] >= file.stat().st_size
    assert told(host) == ["VM_STARTED", "VM_CRASHED"]
    (task,) = (row.record for row in host.stack.database.rows("task").values() if row.record["name_label"] == LABEL)
    assert (task["status"], task["progress"]) == ("success", 1.0)
    assert host.domids() == set()
    await host.call("crashdump.destroy", host.stack.database.refs("crashdump")[0])
    assert (dumps(host), cores(host), file.exists()) == ([], [], False)


@pytest.mark.parametrize("action", ["coredump_and_restart", "rename_restart"])
async def test_its_memory_is_kept_and_the_machine_starts_again(host: World, action: str) -> None:
    vm = await crashing(host, action)
    await host.settle()
    await host.until_state(vm, "Running")
    assert host.get("VM", vm, "domid") == 2
    assert len(dumps(host)) == 1
    assert told(host) == ["VM_STARTED", "VM_CRASHED", "VM_REBOOTED"]


async def test_where_it_is_kept(host: World) -> None:
    place = {"location": str(host.stack.settings.state_dir / "dumps")}
    own = await host.call("SR.create", host.stack.host, place, 0, "dumps", "", "file", "user", False, {})
    host.change("host", host.stack.host, crash_dump_sr=own)
    host.change("pool", host.stack.pool, crash_dump_SR=NULL)
    await host.until_state(await crashing(host, "coredump_and_destroy"), "Halted")
    (vdi,) = cores(host)
    assert vdi["SR"] == own


async def test_without_a_place_nothing_is_kept(host: World) -> None:
    vm = await host.machine(actions_after_crash="coredump_and_destroy", other_config={"sim:crash-after": "100"})
    host.change("pool", host.stack.pool, crash_dump_SR=NULL, default_SR=NULL)
    await host.call("VM.start", vm, False, False)
    await host.clock.advance(101)
    await host.until_state(vm, "Halted")
    assert (dumps(host), cores(host)) == ([], [])
    (task,) = (row.record for row in host.stack.database.rows("task").values() if row.record["name_label"] == LABEL)
    assert task["error_info"] == ("VM_NO_CRASHDUMP_SR", vm)


async def test_who_crashes_again_and_again_fills_no_repository(host: World) -> None:
    vm = await host.machine(actions_after_crash="coredump_and_destroy", other_config={"sim:crash-after": "100"})
    with host.stack.database.transaction() as transaction:
        for _ in range(MOST_KEPT):
            transaction.create("crashdump", {"VM": vm, "VDI": NULL})
    await host.call("VM.start", vm, False, False)
    await host.clock.advance(101)
    await host.until_state(vm, "Halted")
    assert (len(dumps(host)), cores(host)) == (MOST_KEPT, [])
    (task,) = (row.record for row in host.stack.database.rows("task").values() if row.record["name_label"] == LABEL)
    assert task["error_info"][0] == "OPERATION_NOT_ALLOWED"


@pytest.mark.parametrize("step", ["remember the core", "make the core", "dump the memory", "record the core"])
async def test_a_failure_leaves_nothing(host: World, step: str) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    before = host.files()

    def fail(name: str) -> None:
        if name == step:
            raise ApiError("INTERNAL_ERROR", "asked for")

    token = before_step.set(fail)
    try:
        with pytest.raises(ApiError, match="asked for"):
            await core_dumps.keep(host.stack, vm, host.get("VM", vm, "domid"))
    finally:
        before_step.reset(token)
    assert (dumps(host), cores(host), host.files()) == ([], [], before)


async def test_a_hypervisor_that_fails(host: World) -> None:
    vm = await crashing(host, "coredump_and_destroy", **{"sim:fail-dump-core": "no memory"})
    await host.until_state(vm, "Halted")
    assert (dumps(host), cores(host)) == ([], [])


async def test_it_is_paused_meanwhile_and_can_be_cancelled(host: World) -> None:
    vm = await crashing(host, "coredump_and_destroy", **{"sim:delay-dump-core": "50"})
    task = await task_of(host)
    assert host.power_state(vm) == "Paused"
    assert [core["managed"] for core in cores(host)] == [False]
    await host.clock.advance(20)
    await host.settle()
    assert 0 < host.get("task", task, "progress") < 1
    await host.call("task.cancel", task)
    await host.until_state(vm, "Halted")
    assert (dumps(host), cores(host), host.get("task", task, "status")) == ([], [], "cancelled")


async def test_cutting_the_power_ends_it(host: World) -> None:
    vm = await crashing(host, "coredump_and_restart", **{"sim:delay-dump-core": "50"})
    await task_of(host)
    await host.over(host.call("VM.hard_shutdown", vm), 60)
    assert (host.power_state(vm), host.domids(), dumps(host), cores(host)) == ("Halted", set(), [], [])


async def test_a_guest_that_crashes_while_it_shuts_down(host: World) -> None:
    config = {"sim:ignore-shutdown": "true", "sim:crash-after": "20"}
    vm = await host.machine(actions_after_crash="coredump_and_destroy", other_config=config)
    await host.call("VM.start", vm, False, False)
    stopping = host.begin("VM.clean_shutdown", vm)
    for _ in range(30):
        await host.settle()
        await host.clock.advance(1)
    with pytest.raises(Exception, match="VM_CRASHED"):
        await stopping
    await host.until_state(vm, "Halted")
    assert len(dumps(host)) == 1


async def test_what_a_daemon_began_the_next_one_does(tmp_path: Path) -> None:
    database, clock = tmp_path / "state.db", ManualClock()
    async with world(tmp_path, database=database, clock=clock) as first:
        kept = await crashing(first, "preserve")
        vm = await crashing(first, "coredump_and_destroy", **{"sim:delay-dump-core": "50"})
        await task_of(first)
        (begun,) = cores(first)
    async with world(tmp_path, database=database, clock=clock) as second:
        assert second.power_state(kept) == "Paused"
        await task_of(second)
        for _ in range(60):
            await second.settle()
            await clock.advance(1)
        await second.until_state(vm, "Halted")
        ((dump,), (core,)) = dumps(second), cores(second)
        assert (dump["VM"], core["managed"]) == (vm, True)
        assert core["uuid"] != begun["uuid"]
        assert told(second).count("VM_CRASHED") == 2
        assert second.domids() == {second.get("VM", kept, "domid")}


async def test_a_machine_that_runs_already_is_kept_too(host: World) -> None:
    vm = await host.machine(actions_after_crash="restart", other_config={"sim:crash-after": "100"})
    await host.call("VM.start", vm, False, False)
    await host.call("VM.set_actions_after_crash", vm, "coredump_and_destroy")
    await host.clock.advance(101)
    await host.until_state(vm, "Halted")
    assert len(dumps(host)) == 1
    await host.call("VM.set_actions_after_crash", vm, "destroy")


async def test_a_change_of_mind_counts(host: World) -> None:
    """A machine that was started to be kept, and is to be destroyed by now."""
    vm = await host.machine(actions_after_crash="preserve", other_config={"sim:crash-after": "100"})
    await host.call("VM.start", vm, False, False)
    await host.call("VM.set_actions_after_crash", vm, "destroy")
    await host.clock.advance(101)
    await host.until_state(vm, "Halted")
    assert (host.domids(), dumps(host)) == (set(), [])
