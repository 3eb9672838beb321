"""Machines that are to run whenever the host does."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.idl.types import Ref
from domzero.toolstack.vm.power_on import BOOT_FILE, MARK, power_on_marked
from tests.toolstack.vm.world import World

MARKED = {MARK: "true"}


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
