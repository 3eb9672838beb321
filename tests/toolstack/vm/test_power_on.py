"""Machines that are to run whenever the host does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from domzero.idl.types import Ref
from domzero.toolstack.vm.power_on import BOOT_FILE, MARK, STORAGE_PATIENCE, power_on_marked
from tests.toolstack.storage.test_media import Restarts, make_slow
from tests.toolstack.vm.world import DISK, DRIVE, World

MARKED = {MARK: "true"}


@pytest.fixture
def restarts(tmp_path: Path) -> Restarts:
    return Restarts(tmp_path)


def last_boot(host: World) -> Path:
    return host.stack.settings.state_dir / BOOT_FILE


async def mark_pool(host: World) -> None:
    await host.call("pool.add_to_other_config", host.stack.pool, MARK, "true")


async def boot(host: World) -> None:
    """What a daemon does that finds the computer booted since the last one."""
    last_boot(host).write_text("the boot before")
    await power_on_marked(host.stack)


async def machine(host: World, **config: str) -> Ref:
    return await host.machine(disks=0, cards=0, other_config=dict(config))


def running(host: World) -> set[Ref]:
    return {vm for vm, row in host.stack.database.rows("VM").items() if row.record["domid"] > 0}


async def test_marked_machines_start_after_a_boot(host: World) -> None:
    await mark_pool(host)
    one, two = await machine(host, **MARKED), await machine(host, **MARKED)
    await machine(host)
    await machine(host, **{MARK: "false"})
    await host.machine(disks=0, cards=0, template=True, other_config=MARKED)
    await boot(host)
    assert running(host) == {one, two}
    assert last_boot(host).read_text() == host.stack.facts.machine().boot_id
    assert not [row for row in host.stack.database.rows("task").values() if row.record["name_label"] == "VM.start"]


async def test_a_start_of_the_daemon_alone_starts_none(host: World) -> None:
    await mark_pool(host)
    vm = await machine(host, **MARKED)
    await boot(host)
    await host.call("VM.hard_shutdown", vm)
    await power_on_marked(host.stack)
    assert running(host) == set()


async def test_the_first_daemon_of_all_only_takes_note(host: World) -> None:
    await mark_pool(host)
    await machine(host, **MARKED)
    await power_on_marked(host.stack)
    assert running(host) == set()
    assert last_boot(host).is_file()


async def test_without_the_pools_mark_none_starts(host: World) -> None:
    await machine(host, **MARKED)
    await boot(host)
    assert running(host) == set()


async def test_a_host_that_was_disabled_to_be_rebooted_takes_machines_again(host: World) -> None:
    await mark_pool(host)
    vm = await machine(host, **MARKED)
    await host.call("host.disable", host.stack.host)
    await boot(host)
    assert running(host) == {vm}
    assert host.get("host", host.stack.host, "enabled") is True
    assert "vm_start" in host.get("host", host.stack.host, "allowed_operations")
    await host.call("host.disable", host.stack.host)
    await power_on_marked(host.stack)
    assert host.get("host", host.stack.host, "enabled") is False


async def test_one_that_cannot_start_is_passed_over(host: World, caplog: pytest.LogCaptureFixture) -> None:
    await mark_pool(host)
    stuck = await machine(host, **MARKED, **{"sim:fail-start": "no"})
    other = await machine(host, **MARKED)
    await host.call("VM.set_order", other, 1)
    await boot(host)
    assert running(host) == {other}
    assert stuck in caplog.text


async def test_lower_orders_start_first(host: World) -> None:
    await mark_pool(host)
    last, first = await machine(host, **MARKED), await machine(host, **MARKED)
    await host.call("VM.set_order", last, 2)
    await host.call("VM.set_order", first, 1)
    await boot(host)
    assert host.get("VM", first, "domid") < host.get("VM", last, "domid")


async def remote(host: World) -> tuple[Ref, Ref]:
    """A repository that can be unplugged, and its PBD."""
    sr = await host.call("SR.create", host.stack.host, {"location": "/sim"}, "0", "remote", "", "file", "", False, {})
    (pbd,) = host.get("SR", sr, "PBDs")
    return str(sr), str(pbd)


async def machine_on(host: World, *repositories: Ref, **config: str) -> Ref:
    vm = await machine(host, **config)
    for number, sr in enumerate(repositories):
        vdi = await host.call("VDI.create", {**DISK, "SR": sr})
        await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": str(number)})
    return vm


def begin_boot(host: World) -> asyncio.Task[Any]:
    return asyncio.ensure_future(boot(host))


def known(host: World) -> tuple[str, ...]:
    """The boot that was dealt with, and who waits since then."""
    return tuple(last_boot(host).read_text().split())


def listeners(host: World) -> int:
    return len(host.stack.database._listeners)


async def test_storage_that_comes_late_starts_who_waits_for_it(host: World) -> None:
    await mark_pool(host)
    (one, plug_one), (two, plug_two) = await remote(host), await remote(host)
    last, first = await machine_on(host, one, **MARKED), await machine_on(host, one, **MARKED)
    await host.call("VM.set_order", last, 1)
    both, here = await machine_on(host, one, two, **MARKED), await machine(host, **MARKED)
    unmarked = await machine_on(host, one)
    for pbd in (plug_one, plug_two):
        await host.call("PBD.unplug", pbd)
    before = listeners(host)
    booting = begin_boot(host)
    await host.settle()
    assert running(host) == {here}
    assert known(host)[0] == host.stack.facts.machine().boot_id
    assert set(known(host)[1:]) == {last, first, both}
    await host.call("PBD.plug", plug_one)
    await host.settle()
    assert running(host) == {here, last, first}
    assert host.get("VM", first, "domid") < host.get("VM", last, "domid")
    assert known(host)[1:] == (both,)
    # Who was shut down since then stays so.
    await host.call("VM.hard_shutdown", first)
    await host.call("PBD.plug", plug_two)
    await asyncio.wait_for(booting, 10)
    assert running(host) == {here, last, both}
    assert known(host) == (host.stack.facts.machine().boot_id,)
    assert listeners(host) == before
    assert host.power_state(unmarked) == "Halted"


async def test_storage_is_not_waited_for_for_ever(host: World, caplog: pytest.LogCaptureFixture) -> None:
    await mark_pool(host)
    sr, pbd = await remote(host)
    vm = await machine_on(host, sr, **MARKED)
    await host.call("PBD.unplug", pbd)
    booting = begin_boot(host)
    await host.settle()
    await host.clock.advance(STORAGE_PATIENCE - 1)
    await host.settle()
    assert not booting.done()
    await host.clock.advance(2)
    await asyncio.wait_for(booting, 10)
    assert f"the storage of {vm} has not come" in caplog.text
    assert known(host) == (host.stack.facts.machine().boot_id,)
    await host.call("PBD.plug", pbd)
    await power_on_marked(host.stack)
    assert running(host) == set()


async def test_marks_count_when_the_storage_comes(host: World) -> None:
    await mark_pool(host)
    sr, pbd = await remote(host)
    gone, spared, wanted = [await machine_on(host, sr, **MARKED) for _ in range(3)]
    await host.call("PBD.unplug", pbd)
    booting = begin_boot(host)
    await host.settle()
    await host.call("VM.remove_from_other_config", spared, MARK)
    await host.call("VM.destroy", gone)
    await host.call("PBD.plug", pbd)
    await asyncio.wait_for(booting, 10)
    assert running(host) == {wanted}


@pytest.mark.slow
async def test_a_daemon_that_comes_back_goes_on_waiting(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        await mark_pool(host)
        sr, _, vdi = await make_slow(host, delay_attach="600")
        vm = await machine(host, **MARKED)
        await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "0"})
        ended = await machine(host, **MARKED)
        last_boot(host).write_text("the boot before")
    for _ in range(2):
        async with restarts.daemon() as host:
            host.stack.machines.in_background(power_on_marked(host.stack), "machines that are to run")
            await host.settle()
            assert known(host)[1:] == (vm,)
            if host.power_state(ended) == "Running":
                await host.call("VM.hard_shutdown", ended)
    async with restarts.daemon() as host:
        host.stack.machines.in_background(power_on_marked(host.stack), "machines that are to run")
        await host.clock.advance(600)
        await host.settle()
        await host.until_state(vm, "Running")
        assert host.get("SR", sr, "current_operations") == {}
        assert running(host) == {vm}
        await host.settle()
        assert known(host) == (host.stack.facts.machine().boot_id,)
