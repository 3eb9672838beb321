"""Turns at a machine, and many machines at once."""

from __future__ import annotations

import asyncio

import pytest

from tests.toolstack.vm.world import World


@pytest.mark.slow
async def test_twenty_machines_start_and_stop_at_once(host: World) -> None:
    machines = [await host.machine(disks=0) for _ in range(20)]
    await asyncio.gather(*(host.call("VM.start", vm, False, False) for vm in machines))
    assert len(host.domids()) == 20
    assert {host.power_state(vm) for vm in machines} == {"Running"}
    await asyncio.gather(*(host.call("VM.hard_shutdown", vm) for vm in machines))
    assert (host.domids(), host.cards()) == (set(), set())


async def test_a_machine_is_started_once(host: World) -> None:
    vm = await host.machine()
    calls = [host.fails("VM.start", vm, False, False) for _ in range(3)]
    outcomes = await asyncio.gather(host.call("VM.start", vm, False, False), *calls)
    assert outcomes[1:] == [("VM_BAD_POWER_STATE", vm, "halted", "running")] * 3
    assert len(host.domids()) == 1


async def test_turns_are_taken_in_order_and_left_on_cancellation(host: World) -> None:
    vm = await host.machine()
    order: list[int] = []
    go = asyncio.Event()

    async def take(number: int) -> None:
        async with host.stack.machines.turn(vm):
            order.append(number)
            await go.wait()

    tasks = [asyncio.ensure_future(take(number)) for number in range(4)]
    await host.settle()
    tasks[0].cancel()
    tasks[2].cancel()
    await host.settle()
    assert order == [0, 1]
    go.set()
    await asyncio.wait(tasks)
    assert order == [0, 1, 3]


async def test_an_operation_admitted_before_the_guest_ended_is_told(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    async with host.stack.machines.turn(vm):
        call = asyncio.ensure_future(host.fails("VM.pause", vm))
        await host.settle()
        await host.stack.hypervisor.destroy(host.get("VM", vm, "domid"))
    assert (await call)[0] == "VM_BAD_POWER_STATE"
    await host.until_state(vm, "Halted")


async def test_a_cancelled_start_leaves_nothing(host: World) -> None:
    vm = await host.machine(other_config={"sim:delay-start": "100"})
    task = await host.call("Async.VM.start", vm, False, False)
    await host.settle()
    assert host.cards() != set()
    await host.call("task.cancel", task)
    await host.settle()
    assert host.get("task", task, "status") == "cancelled"
    assert (host.power_state(vm), host.domids(), host.cards()) == ("Halted", set(), set())
    assert host.get("VM", vm, "scheduled_to_be_resident_on") == "OpaqueRef:NULL"


async def test_a_cancelled_suspend_lets_the_guest_go_on(host: World) -> None:
    vm = await host.machine(other_config={"sim:delay-save": "100"})
    await host.call("VM.start", vm, False, False)
    files = host.files()
    task = await host.call("Async.VM.suspend", vm)
    await host.settle()
    await host.call("task.cancel", task)
    await host.settle()
    assert (host.power_state(vm), host.files()) == ("Running", files)
    await host.call("VM.hard_shutdown", vm)


async def test_hard_shutdown_during_a_suspend(host: World) -> None:
    vm = await host.machine(other_config={"sim:delay-save": "100"})
    files = host.files()
    await host.call("VM.start", vm, False, False)
    await host.call("Async.VM.suspend", vm)
    await host.settle()
    await host.call("VM.hard_shutdown", vm)
    assert (host.power_state(vm), host.files(), host.domids()) == ("Halted", files, set())
