"""A daemon that is told to end leaves what it was about to do to the next one, which nothing keeps from serving."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.engine.steps import before_step
from domzero.idl.types import Ref
from tests.toolstack.vm.test_adoption import Restarts, running
from tests.toolstack.vm.world import World

SLOW = "sim:delay-start"


@pytest.fixture
def restarts(tmp_path: Path) -> Restarts:
    return Restarts(tmp_path)


async def slow_from_now_on(host: World, vm: Ref) -> None:
    await host.call("VM.add_to_other_config", vm, SLOW, "100")


async def quick_again(host: World, vm: Ref) -> None:
    await host.settle()
    assert (host.power_state(vm), host.get("VM", vm, "domid")) == ("Running", -1)
    await host.call("VM.remove_from_other_config", vm, SLOW)


async def test_a_guest_that_reboots_while_the_daemon_ends_is_booted_by_the_next(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        vm = await host.machine(other_config={"mac_seed": "s", "sim:reboot-after": "10"})
        await host.call("VM.start", vm, False, False)
        await slow_from_now_on(host, vm)
        await host.clock.advance(10)
        await quick_again(host, vm)
    async with restarts.daemon() as host:
        assert (host.power_state(vm), len(host.domids()), len(host.cards())) == ("Running", 1, 1)


@pytest.mark.parametrize("method", ["VM.clean_reboot", "VM.hard_reboot"])
async def test_a_reboot_under_way_is_finished_by_the_next(restarts: Restarts, method: str) -> None:
    async with restarts.daemon() as host:
        vm = await running(host)
        await slow_from_now_on(host, vm)
        call = host.begin(method, vm)
        await quick_again(host, vm)
        call.add_done_callback(lambda done: done.cancelled() or done.exception())
    async with restarts.daemon() as host:
        assert (host.power_state(vm), len(host.domids())) == ("Running", 1)


async def test_what_ends_after_the_last_reaction_is_left_alone(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        vm = await host.machine(other_config={"mac_seed": "s", "sim:reboot-after": "10"})
        await host.call("VM.start", vm, False, False)
        await host.stack.machines.close()
        await host.clock.advance(10)
        await host.settle()
        assert host.domids() == set()
    async with restarts.daemon() as host:
        assert host.power_state(vm) == "Halted"


@pytest.mark.parametrize("text", ["9" * 5000, str(1 << 62), "-4", "\u0663"])
async def test_domain_numbers_survive_what_clients_write(restarts: Restarts, text: str) -> None:
    """A client may write anything into the map in which the last number is kept."""
    async with restarts.daemon() as host:
        vm = await running(host)
        domid = host.get("VM", vm, "domid")
        control = host.get("host", host.stack.host, "control_domain")
        await host.call("VM.set_other_config", control, {"last_domid": text})
    async with restarts.daemon() as host:
        await host.call("VM.hard_reboot", vm)
        assert domid < host.get("VM", vm, "domid") < 1000


async def test_one_machine_that_cannot_be_settled_does_not_keep_the_host_from_serving(restarts: Restarts) -> None:
    async with restarts.daemon() as host:
        vm, other = await running(host), await running(host)
        await host.stack.hypervisor.destroy(host.get("VM", vm, "domid"))
        await host.until_state(vm, "Halted")
        host.change("VM", vm, power_state="Running")

    def fail(name: str) -> None:
        raise RuntimeError(name)

    token = before_step.set(fail)
    try:
        async with restarts.daemon() as host:
            before_step.reset(token)
            assert host.power_state(other) == "Running"
            await host.call("VM.power_state_reset", vm)
            await host.call("VM.start", vm, False, False)
    finally:
        before_step.set(None)
