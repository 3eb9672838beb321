"""What machines hold of their hosts, added up as it changes, and nobody gets what another is about to have."""

from __future__ import annotations

import asyncio

from domzero.engine.errors import ApiError
from domzero.toolstack.vm.memory_needs import memory_held, memory_needed
from domzero.toolstack.vm.placement import memory_available
from tests.toolstack.vm.world import MIB, World


def added_up(host: World) -> int:
    """What the machines hold, counted one by one."""
    return sum(
        memory_held(row.record)
        for row in host.stack.database.rows("VM").values()
        if host.stack.host in (row.record["resident_on"], row.record["scheduled_to_be_resident_on"])
        and not row.record["is_control_domain"]
    )


async def test_the_ledger_follows_every_machine(host: World) -> None:
    held = host.stack.memory.held
    assert held(host.stack.host) == added_up(host) == 0
    machines = [await host.machine(disks=0, cards=0) for _ in range(3)]
    for vm in machines:
        await host.call("VM.start", vm, False, False)
        assert held(host.stack.host) == added_up(host) > 0
    await host.call("VM.set_memory_target_live", machines[0], str(100 * MIB))
    assert held(host.stack.host) == added_up(host)
    await host.call("VM.suspend", machines[0])
    await host.call("VM.hard_reboot", machines[1])
    await host.call("VM.hard_shutdown", machines[2])
    await host.call("VM.destroy", machines[2])
    assert held(host.stack.host) == added_up(host) == memory_held(host.row("VM", machines[1]))
    await host.call("VM.hard_shutdown", machines[1])
    assert held(host.stack.host) == added_up(host) == 0


async def test_two_machines_do_not_start_on_memory_for_one(host: World) -> None:
    machines = [await host.machine(disks=0, cards=0) for _ in range(2)]
    metrics = host.get("host", host.stack.host, "metrics")
    enough_for_one = memory_needed(host.row("VM", machines[0])) + MIB
    host.change(
        "host_metrics", metrics, memory_total=enough_for_one + host.get("host", host.stack.host, "memory_overhead")
    )
    async with host.stack.machines.turn(machines[0]), host.stack.machines.turn(machines[1]):
        calls = [host.begin("VM.start", vm, False, False) for vm in machines]
        await host.settle()  # both have been found a host by now
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome.code for outcome in outcomes if isinstance(outcome, ApiError)]
    assert refused == ["HOST_NOT_ENOUGH_FREE_MEMORY"]
    assert len(host.domids()) == 1
    left = memory_available(host.stack, host.stack.host)
    assert left is not None
    assert 0 <= left <= MIB


async def test_what_is_free_is_what_a_machine_can_have(host: World) -> None:
    """And not what the host's own programs happen to leave at the moment."""
    vm, other = await host.machine(disks=0, cards=0), await host.machine(disks=0, cards=0)
    metrics = host.get("host", host.stack.host, "metrics")
    host.change("host_metrics", metrics, memory_total=1 << 30, memory_free=1)
    free = await host.call("host.compute_free_memory", host.stack.host)
    most = await host.call("VM.maximise_memory", vm, free, False)
    assert most > 900 * MIB
    await host.call("VM.set_memory", vm, str(most))
    await host.call("VM.start", vm, False, False)
    left = await host.call("host.compute_free_memory", host.stack.host)
    assert 0 <= left < 2 * MIB
    assert await host.fails("VM.start", other, False, False) == (
        "HOST_NOT_ENOUGH_FREE_MEMORY", str(memory_needed(host.row("VM", other))), str(left),
    )  # fmt: skip
    host.change("host_metrics", metrics, memory_total=MIB)
    assert await host.call("host.compute_free_memory", host.stack.host) == 0


async def test_a_running_guest_gets_no_more_than_is_free(host: World) -> None:
    vm = await host.machine(disks=0, cards=0, memory_static_max=256 * MIB, memory_dynamic_min=64 * MIB)
    await host.call("VM.start", vm, False, False)
    metrics = host.get("host", host.stack.host, "metrics")
    held = host.stack.memory.held(host.stack.host) + host.get("host", host.stack.host, "memory_overhead")
    host.change("host_metrics", metrics, memory_total=held + 16 * MIB)
    refused = ("HOST_NOT_ENOUGH_FREE_MEMORY", str(72 * MIB), str(16 * MIB))
    before = host.row("VM", vm)
    assert await host.fails("VM.set_memory_target_live", vm, str(200 * MIB)) == refused
    assert await host.fails("VM.set_memory_dynamic_range", vm, str(200 * MIB), str(256 * MIB)) == refused
    assert host.row("VM", vm) == before
    # The ceiling alone gives the guest nothing yet.
    await host.call("VM.set_memory_dynamic_max", vm, str(256 * MIB))
    await host.call("VM.set_memory_target_live", vm, str(144 * MIB))
    # What gives memory back is never refused.
    host.change("host_metrics", metrics, memory_total=MIB)
    await host.call("VM.set_memory_target_live", vm, str(100 * MIB))
    assert host.get("VM", vm, "memory_target") == 100 * MIB
