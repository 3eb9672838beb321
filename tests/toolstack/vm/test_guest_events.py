"""What guests do by themselves, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.host.hypervisor.protocol import StopReason
from domzero.toolstack.vm.guest_events import Reaction, bounce_delay, reaction_to
from tests.toolstack.vm.world import World

NULL = "OpaqueRef:NULL"
FAULTS = {
    "actions_after_shutdown": "sim:shutdown-after",
    "actions_after_reboot": "sim:reboot-after",
    "actions_after_crash": "sim:crash-after",
}


@pytest.mark.parametrize(
    ("action", "reaction"),
    [
        ("destroy", Reaction.HALT),
        ("restart", Reaction.RESTART),
        ("coredump_and_destroy", Reaction.HALT),
        ("coredump_and_restart", Reaction.RESTART),
        ("preserve", Reaction.HALT),
        ("rename_restart", Reaction.RESTART),
    ],
)
def test_every_action_after_a_crash_is_obeyed(action: str, reaction: Reaction) -> None:
    record = {"actions_after_crash": action, "actions_after_shutdown": "destroy", "actions_after_reboot": "destroy"}
    assert reaction_to(record, StopReason.CRASH) is reaction
    assert reaction_to(record, StopReason.DESTROYED) is Reaction.HALT


def test_bouncing_guests_wait() -> None:
    assert bounce_delay(5, bounces=0) == 0
    assert bounce_delay(5, bounces=1) == 115
    assert bounce_delay(59, bounces=7) == 61
    assert bounce_delay(60, bounces=7) == 0


@pytest.mark.parametrize("field", FAULTS)
async def test_a_guest_that_ends_is_halted_where_that_is_asked_for(host: World, field: str) -> None:
    fields: dict[str, Any] = {field: "destroy", "other_config": {FAULTS[field]: "10"}}
    vm = await host.machine(**fields)
    await host.call("VM.start", vm, False, False)
    await host.clock.advance(11)
    await host.until_state(vm, "Halted")
    record = host.row("VM", vm)
    assert (record["domid"], record["resident_on"], record["consoles"]) == (-1, NULL, ())
    assert (host.domids(), host.cards()) == (set(), set())
    assert host.get("VBD", record["VBDs"][0], "currently_attached") is False
    assert "start" in record["allowed_operations"]


@pytest.mark.parametrize("field", FAULTS)
async def test_a_guest_that_ends_is_restarted_where_that_is_asked_for(host: World, field: str) -> None:
    fields: dict[str, Any] = {field: "restart", "other_config": {FAULTS[field]: "100"}}
    vm = await host.machine(**fields)
    await host.call("VM.start", vm, False, False)
    before = host.row("VM", vm)
    await host.clock.advance(101)
    await host.settle()
    record = host.row("VM", vm)
    assert record["power_state"] == "Running"
    assert record["domid"] > before["domid"]
    assert (host.domids(), host.cards()) == ({record["domid"]}, {(record["domid"], 0)})
    assert record["consoles"] == before["consoles"]
    assert host.get("VM_metrics", record["metrics"], "start_time") == "20110930T00:01:40Z"


async def test_a_guest_that_bounces_is_restarted_two_minutes_after_its_last_start(host: World) -> None:
    vm = await host.machine(actions_after_crash="restart", other_config={"sim:crash-after": "10"})
    await host.call("VM.start", vm, False, False)
    await host.clock.advance(10.5)
    await host.settle()
    assert host.power_state(vm) == "Running"
    await host.clock.advance(10)
    await host.until_state(vm, "Halted")
    await host.clock.advance(105)
    await host.settle()
    assert host.power_state(vm) == "Halted"
    await host.clock.advance(10)
    await host.until_state(vm, "Running")


async def test_a_waiting_restart_gives_way_to_people(host: World) -> None:
    vm = await host.machine(actions_after_crash="restart", other_config={"sim:crash-after": "10"})
    await host.call("VM.start", vm, False, False)
    for _ in range(2):
        await host.clock.advance(10.5)
        await host.settle()
    assert host.power_state(vm) == "Halted"
    await host.call("VM.set_actions_after_crash", vm, "destroy")
    await host.clock.advance(300)
    await host.settle()
    assert host.power_state(vm) == "Halted"


async def test_a_restart_that_fails_halts(host: World) -> None:
    vm = await host.machine(other_config={"sim:reboot-after": "100"})
    await host.call("VM.start", vm, False, False)
    await host.call("VM.add_to_other_config", vm, "sim:fail-start", "no")
    await host.clock.advance(101)
    await host.until_state(vm, "Halted")
    assert (host.domids(), host.cards()) == (set(), set())


async def test_a_domain_killed_from_outside_is_noticed(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    await host.stack.hypervisor.destroy(host.get("VM", vm, "domid"))
    await host.until_state(vm, "Halted")
    assert host.cards() == set()


async def test_a_domain_paused_from_outside_is_noticed(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    domid = host.get("VM", vm, "domid")
    await host.stack.hypervisor.pause(domid)
    await host.until_state(vm, "Paused")
    assert "unpause" in host.get("VM", vm, "allowed_operations")
    await host.stack.hypervisor.unpause(domid)
    await host.until_state(vm, "Running")


async def test_a_crashed_guest_is_preserved_where_that_is_asked_for(host: World) -> None:
    vm = await host.machine(actions_after_crash="preserve", other_config={"sim:crash-after": "10"})
    await host.call("VM.start", vm, False, False)
    domids = host.domids()
    await host.clock.advance(11)
    await host.until_state(vm, "Paused")
    assert host.domids() == domids
    await host.call("VM.hard_shutdown", vm)
    assert host.domids() == set()
