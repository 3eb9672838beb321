"""Machines started and stopped together."""

from __future__ import annotations

from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.vm_appliance import shutdown_order, start_order
from tests.toolstack.vm.world import World

EMPTY = {"name_label": "group", "name_description": ""}


async def group(host: World, orders: list[int], **config: str) -> tuple[Ref, list[Ref]]:
    appliance = await host.call("VM_appliance.create", EMPTY)
    machines = []
    for order in orders:
        vm = await host.machine(disks=0, cards=0, other_config={"mac_seed": "s", **config})
        await host.call("VM.set_order", vm, str(order))
        await host.call("VM.set_appliance", vm, appliance)
        machines.append(vm)
    return appliance, machines


def test_orders() -> None:
    machines = {
        "a": {"order": 1, "start_delay": 3, "shutdown_delay": 0},
        "b": {"order": 0, "start_delay": 5, "shutdown_delay": 1},
        "c": {"order": 0, "start_delay": 7, "shutdown_delay": 2},
    }
    assert start_order(machines) == [(["b", "c"], 7), (["a"], 3)]
    assert shutdown_order(machines) == [(["a"], 0), (["b", "c"], 2)]
    assert start_order({}) == []


async def test_start_and_stop(host: World) -> None:
    appliance, machines = await group(host, [0, 1, 1])
    assert sorted(host.get("VM_appliance", appliance, "VMs")) == sorted(machines)
    assert "start" in host.get("VM_appliance", appliance, "allowed_operations")
    await host.call("VM.set_start_delay", machines[0], "10")
    starting = host.begin("VM_appliance.start", appliance, False)
    await host.settle()
    assert [host.power_state(vm) for vm in machines] == ["Running", "Halted", "Halted"]
    await host.over(starting, 11)
    assert [host.power_state(vm) for vm in machines] == ["Running"] * 3
    await host.over(host.call("VM_appliance.clean_shutdown", appliance), 5)
    assert [host.power_state(vm) for vm in machines] == ["Halted"] * 3
    await host.over(host.call("VM_appliance.start", appliance, True), 11)
    assert [host.power_state(vm) for vm in machines] == ["Paused"] * 3
    await host.call("VM_appliance.hard_shutdown", appliance)
    assert host.domids() == set()


async def test_machines_started_together_leave_the_host_free(host: World) -> None:
    """Both starts run in one task on one host; whichever ends first, none is left in the host's operations."""
    for seconds in (("1", "3"), ("3", "1")):
        appliance, machines = await group(host, [0, 0])
        for vm, delay in zip(machines, seconds, strict=True):
            await host.call("VM.add_to_other_config", vm, "sim:delay-start", delay)
        starting = host.begin("VM_appliance.start", appliance, False)
        await host.settle()
        await host.clock.advance(2)
        await host.settle()
        assert sorted(host.power_state(vm) for vm in machines) == ["Halted", "Running"]
        assert set(host.get("host", host.stack.host, "current_operations").values()) == {"vm_start"}
        await host.over(starting, 5)
        assert host.get("host", host.stack.host, "current_operations") == {}


async def test_a_failure_in_the_middle(host: World) -> None:
    appliance, machines = await group(host, [0, 1, 2])
    await host.call("VM.add_to_blocked_operations", machines[1], "start", "no")
    assert await host.fails("VM_appliance.start", appliance, False) == ("OPERATION_PARTIALLY_FAILED", "start")
    assert [host.power_state(vm) for vm in machines] == ["Running", "Halted", "Halted"]
    await host.over(host.call("VM_appliance.shutdown", appliance), 5)
    assert host.domids() == set()


async def test_dissolving(host: World) -> None:
    appliance, machines = await group(host, [0])
    await host.call("VM_appliance.destroy", appliance)
    assert host.get("VM", machines[0], "appliance") == NULL_REF
    assert (await host.fails("VM.set_appliance", machines[0], appliance))[:2] == ("HANDLE_INVALID", "VM_appliance")
