"""Machines through their power states, as clients see them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from domzero.engine.errors import ApiError
from domzero.host.metrics.protocol import Memory
from domzero.toolstack.host.rows import ensure_pool_and_host
from tests.toolstack.vm.world import World


async def test_start_shows_a_running_machine(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    record = host.row("VM", vm)
    assert record["power_state"] == "Running"
    assert record["resident_on"] == host.stack.host
    assert record["scheduled_to_be_resident_on"] == "OpaqueRef:NULL"
    assert {record["domid"]} == host.domids()
    assert record["domid"] > 0
    assert record["current_operations"] == {}
    assert "clean_shutdown" in record["allowed_operations"]
    drive = host.row("VBD", record["VBDs"][0])
    assert (drive["currently_attached"], drive["device"]) == (True, "xvda")
    assert host.get("VIF", record["VIFs"][0], "currently_attached") is True
    assert host.cards() == {(record["domid"], 0)}
    assert host.get("VM_metrics", record["metrics"], "start_time") == "20110930T00:00:00Z"
    consoles = {
        host.get("console", ref, "protocol"): host.get("console", ref, "location") for ref in record["consoles"]
    }
    assert set(consoles) == {"rfb", "vt100"}
    assert all(f"/console?ref={ref}" in consoles[host.get("console", ref, "protocol")] for ref in record["consoles"])


async def test_hard_shutdown_leaves_nothing(host: World) -> None:
    vm = await host.machine()
    before = host.row("VM", vm)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.hard_shutdown", vm)
    after = host.row("VM", vm)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"last_booted_record", "last_boot_CPU_flags", "memory_overhead"}
    assert host.domids() == set()
    assert host.cards() == set()
    assert host.get("VBD", after["VBDs"][0], "currently_attached") is False
    assert host.stack.database.refs("console") == ()


async def test_pause_and_unpause(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, True, False)
    assert host.power_state(vm) == "Paused"
    await host.call("VM.unpause", vm)
    assert host.power_state(vm) == "Running"
    await host.call("VM.pause", vm)
    await host.settle()
    assert host.power_state(vm) == "Paused"
    assert await host.fails("VM.pause", vm) == ("VM_BAD_POWER_STATE", vm, "running", "paused")


async def test_clean_shutdown_waits_for_the_guest(host: World) -> None:
    vm = await host.machine(other_config={"sim:shutdown-delay": "30"})
    await host.call("VM.start", vm, False, False)
    call = host.begin("VM.clean_shutdown", vm)
    await host.clock.advance(29)
    assert not call.done()
    assert list(host.get("VM", vm, "current_operations").values()) == ["clean_shutdown"]
    await host.clock.advance(2)
    await call
    assert (host.power_state(vm), host.cards()) == ("Halted", set())


async def test_a_guest_that_ignores_the_power_button(host: World) -> None:
    vm = await host.machine(other_config={"sim:ignore-shutdown": "true"})
    await host.call("VM.start", vm, False, False)
    call = host.begin("VM.clean_shutdown", vm)
    await host.clock.advance(1201)
    assert call.done()
    assert "VM_SHUTDOWN_TIMEOUT" in str(call.exception())
    assert host.power_state(vm) == "Running"
    call = host.begin("VM.shutdown", vm)
    await host.clock.advance(1201)
    await call
    assert host.power_state(vm) == "Halted"


async def test_a_guest_that_crashes_instead_of_shutting_down(host: World) -> None:
    vm = await host.machine(other_config={"sim:ignore-shutdown": "true", "sim:crash-after": "20"})
    await host.call("VM.start", vm, False, False)
    call = host.begin("VM.clean_shutdown", vm)
    await host.clock.advance(21)
    assert call.exception().description == ("VM_CRASHED", vm)  # type: ignore[union-attr]  # it is an ApiError
    assert host.power_state(vm) == "Halted"


async def test_a_guest_that_reboots_instead_of_shutting_down(host: World) -> None:
    vm = await host.machine(other_config={"sim:ignore-shutdown": "true", "sim:reboot-after": "20"})
    await host.call("VM.start", vm, False, False)
    call = host.begin("VM.clean_shutdown", vm)
    await host.clock.advance(21)
    assert call.exception().description == ("VM_REBOOTED", vm)  # type: ignore[union-attr]  # it is an ApiError
    assert host.power_state(vm) == "Running"


async def test_hard_shutdown_runs_over_a_clean_one(host: World) -> None:
    vm = await host.machine(other_config={"sim:ignore-shutdown": "true"})
    await host.call("VM.start", vm, False, False)
    call = host.begin("Async.VM.clean_shutdown", vm)
    task = await call
    await host.settle()
    await host.call("VM.hard_shutdown", vm)
    assert host.power_state(vm) == "Halted"
    await host.settle()
    assert host.get("task", task, "status") == "cancelled"


async def test_reboots_are_new_domains(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    domids = [host.get("VM", vm, "domid")]
    for method in ("VM.clean_reboot", "VM.hard_reboot"):
        await host.call(method, vm)
        domids.append(host.get("VM", vm, "domid"))
        assert (host.power_state(vm), host.domids()) == ("Running", {domids[-1]})
        assert host.cards() == {(domids[-1], 0)}
    assert len(set(domids)) == 3
    assert domids == sorted(domids)


async def test_a_reboot_that_cannot_start_again_halts(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    await host.call("VM.add_to_other_config", vm, "sim:fail-start", "no")
    assert (await host.fails("VM.hard_reboot", vm))[0] == "FAILED_TO_START_EMULATOR"
    assert (host.power_state(vm), host.domids(), host.cards()) == ("Halted", set(), set())


async def test_the_administrator_may_block_an_operation(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.add_to_blocked_operations", vm, "start", "ask me first")
    assert await host.fails("VM.start", vm, False, False) == ("OPERATION_BLOCKED", vm, "ask me first")
    assert "start" not in host.get("VM", vm, "allowed_operations")


async def test_power_state_reset_is_for_dead_machines(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    domid = host.get("VM", vm, "domid")
    assert await host.fails("VM.power_state_reset", vm) == ("DOMAIN_EXISTS", vm, str(domid))
    control = host.get("host", host.stack.host, "control_domain")
    assert await host.fails("VM.power_state_reset", control) == ("CANNOT_RESET_CONTROL_DOMAIN", control)
    host.change("VM", vm, power_state="Halted", domid=-1)


async def test_the_control_domain_is_left_alone(host: World) -> None:
    control = host.get("host", host.stack.host, "control_domain")
    for method in ("VM.clean_shutdown", "VM.hard_reboot", "VM.pause", "VM.suspend"):
        assert (await host.fails(method, control))[0] == "OPERATION_NOT_ALLOWED"


async def test_the_control_domain_is_as_large_as_the_computer(host: World) -> None:
    """Also when that is another after a boot."""
    control = host.get("host", host.stack.host, "control_domain")
    found = host.stack.facts.machine()
    processors = tuple(replace(found.processors[0], number=number) for number in range(7))
    other = replace(found, memory=Memory(1 << 40, 1 << 39), processors=processors, boot_time=86400.0)
    for machine in (found, other):
        ensure_pool_and_host(host.stack, machine)
        record = host.row("VM", control)
        assert {record[f"memory_{name}"] for name in ("target", "static_max", "dynamic_max")} == {machine.memory.total}
        assert record["VCPUs_max"] == record["VCPUs_at_startup"] == len(machine.processors)
    assert host.get("VM_metrics", host.get("VM", control, "metrics"), "start_time") == "19700102T00:00:00Z"


async def test_a_disk_cannot_be_used_by_two_machines(host: World) -> None:
    first, second = await host.machine(), await host.machine(disks=0)
    vdi = host.get("VBD", host.get("VM", first, "VBDs")[0], "VDI")
    drive = {"bootable": False, "mode": "RW", "type": "Disk", "empty": False, "other_config": {}}
    await host.call("VBD.create", {
        **drive, "VM": second, "VDI": vdi, "userdevice": "0", "qos_algorithm_type": "", "qos_algorithm_params": {},
    })  # fmt: skip
    await host.call("VM.start", first, False, False)
    assert await host.fails("VM.start", second, False, False) == ("VDI_IN_USE", vdi, "attach")
    assert host.get("VM", second, "scheduled_to_be_resident_on") == "OpaqueRef:NULL"


async def test_kernels_are_not_taken_from_anywhere(host: World) -> None:
    vm = await host.machine(PV_kernel="/etc/shadow")
    assert (await host.fails("VM.start", vm, False, False))[:3] == ("VALUE_NOT_SUPPORTED", "PV_kernel", "/etc/shadow")
    assert (host.domids(), host.cards()) == (set(), set())


async def test_a_host_with_too_little_memory(host: World) -> None:
    vm = await host.machine(memory_static_max=1 << 50, memory_dynamic_max=1 << 50)
    code, needed, available = await host.fails("VM.start", vm, False, False)
    assert code == "HOST_NOT_ENOUGH_FREE_MEMORY"
    assert int(needed) > int(available)
    assert await host.call("VM.get_possible_hosts", vm) == ()


async def test_a_disabled_host_starts_nothing(host: World) -> None:
    vm = await host.machine()
    host.change("host", host.stack.host, enabled=False)
    assert await host.fails("VM.start", vm, False, False) == ("HOST_DISABLED", host.stack.host)
    assert await host.fails("VM.assert_can_boot_here", vm, host.stack.host) == ("HOST_DISABLED", host.stack.host)


async def test_live_changes(host: World) -> None:
    vm = await host.machine(VCPUs_max=4, memory_static_min=64 << 20, memory_dynamic_min=64 << 20)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.set_VCPUs_number_live", vm, 3)
    assert host.row("VM_metrics", host.get("VM", vm, "metrics"))["VCPUs_number"] == 3
    assert await host.fails("VM.set_VCPUs_number_live", vm, 5) == ("INVALID_VALUE", "nvcpu", "5")
    await host.call("VM.set_memory_target_live", vm, 100 << 20)
    await host.call("VM.wait_memory_target_live", vm)
    assert host.get("VM", vm, "memory_target") == 100 << 20
    await host.call("VM.add_to_VCPUs_params_live", vm, "weight", "512")
    assert host.get("VM", vm, "VCPUs_params") == {"weight": "512"}
    assert host.row("VM_metrics", host.get("VM", vm, "metrics"))["VCPUs_params"] == {"weight": "512"}
    await host.call("VM.add_to_VCPUs_params_live", vm, "mask", "0")
    for mask in ("4000", "0,4000", "", "0-1"):
        assert await host.fails("VM.add_to_VCPUs_params_live", vm, "mask", mask) == ("INVALID_VALUE", "value", mask)
    assert (await host.fails("VM.add_to_VCPUs_params_live", vm, "speed", "1"))[0] == "INVALID_VALUE"
    await host.call("VM.set_shadow_multiplier_live", vm, 2.0)
    assert host.get("VM", vm, "HVM_shadow_multiplier") == 2.0
    await host.call("VM.send_sysrq", vm, "h")
    for key in ("", "hh", "?", "é", "\n"):
        assert await host.fails("VM.send_sysrq", vm, key) == ("INVALID_VALUE", "key", key)
    await host.call("VM.send_trigger", vm, "nmi")
    assert await host.fails("VM.send_trigger", vm, "rain") == ("INVALID_VALUE", "trigger", "rain")
    await host.call("VM.pool_migrate", vm, host.stack.host, {"live": "true"})
    await host.call("VM.suspend", vm)
    await host.call("VM.resume", vm, False, False)


async def test_processors_that_cannot_be_shared_out_so(host: World) -> None:
    vm = await host.machine(other_config={"sim:fail-schedule": "only root may"}, VCPUs_params={"weight": "256"})
    await host.call("VM.start", vm, False, False)
    refused = ("OPERATION_NOT_ALLOWED", "only root may")
    assert await host.fails("VM.add_to_VCPUs_params_live", vm, "weight", "512") == refused
    assert host.get("VM", vm, "VCPUs_params") == {"weight": "256"}


async def test_a_guest_that_does_not_follow_its_balloon(host: World) -> None:
    vm = await host.machine(other_config={"sim:ignore-balloon": "true"})
    await host.call("VM.start", vm, False, False)
    await host.call("VM.set_memory_target_live", vm, 64 << 20)
    call = host.begin("VM.wait_memory_target_live", vm)
    await host.over(call_settled(call), 40)
    assert call.exception().description == ("VMS_FAILED_TO_COOPERATE",)  # type: ignore[union-attr]  # it is an ApiError


async def call_settled(call: asyncio.Task[object]) -> None:
    await asyncio.wait({call})


async def test_the_boot_record_is_what_was_booted(host: World) -> None:
    vm = await host.machine(name_label="then")
    await host.call("VM.start", vm, False, False)
    await host.call("VM.set_name_label", vm, "now")
    assert (await host.call("VM.get_boot_record", vm))["name_label"] == "then"
    await host.call("VM.hard_shutdown", vm)
    assert (await host.call("VM.get_boot_record", vm))["name_label"] == "now"


async def test_memory_questions(host: World) -> None:
    vm = await host.machine()
    overhead = await host.call("VM.compute_memory_overhead", vm)
    most = await host.call("VM.maximise_memory", vm, 1 << 30, False)
    assert 0 < overhead < 100 << 20
    assert 900 << 20 < most < 1 << 30
    assert await host.call("VM.maximise_memory", vm, 0, False) == 0
    assert await host.call("VM.maximise_memory", vm, 1 << 30, True) % (64 << 20) == 0


async def test_what_devices_allow_follows_what_the_machine_does(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    (vbd,), (vif,) = host.get("VM", vm, "VBDs"), host.get("VM", vm, "VIFs")

    def allowed() -> tuple[set[str], set[str]]:
        return set(host.get("VBD", vbd, "allowed_operations")), set(host.get("VIF", vif, "allowed_operations"))

    pluggable = {"unplug", "unplug_force"}, {"unplug"}
    await host.call("VM.start", vm, False, False)
    assert allowed() == pluggable
    for method, params in (("VM.snapshot", ["s", []]), ("VM.hard_reboot", []), ("VM.checkpoint", ["c"])):
        await host.call(method, vm, *params)
        assert allowed() == pluggable, method
    await host.call("VM.suspend", vm)
    assert allowed() == (set(), set())
    await host.call("VM.resume", vm, False, False)
    assert allowed() == pluggable
    await host.call("VM.hard_shutdown", vm)
    assert allowed() == ({"attach"}, {"attach"})


async def test_disks_say_that_they_are_in_use_while_a_machine_starts(host: World) -> None:
    vm = await host.machine(other_config={"mac_seed": "s", "sim:delay-start": "5"})
    (vbd,), (vif,) = host.get("VM", vm, "VBDs"), host.get("VM", vm, "VIFs")
    vdi = host.get("VBD", vbd, "VDI")
    idle = host.get("VDI", vdi, "allowed_operations")
    assert "destroy" in idle
    starting = host.begin("VM.start", vm, False, False)
    await host.settle()
    assert host.power_state(vm) == "Halted"
    assert {"destroy", "forget", "copy", "resize"}.isdisjoint(host.get("VDI", vdi, "allowed_operations"))
    assert await host.fails("VDI.destroy", vdi) == ("VDI_IN_USE", vdi, "destroy")
    for cls, device in (("VBD", vbd), ("VIF", vif)):
        assert "attach" not in host.get(cls, device, "allowed_operations")
    (task,) = host.get("VM", vm, "current_operations")
    await host.call("task.cancel", task)
    with pytest.raises(ApiError, match="TASK_CANCELLED"):
        await host.over(starting, 6)
    assert host.get("VDI", vdi, "allowed_operations") == idle
