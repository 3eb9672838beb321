"""Saved memory: where it goes, how it comes back, and what failing leaves."""

from __future__ import annotations

import pytest

from domzero.engine.errors import ApiError
from domzero.toolstack.vm.memory_needs import memory_held
from tests.toolstack.vm.world import MIB, World

NULL = "OpaqueRef:NULL"


async def test_suspend_writes_an_image_and_resume_removes_it(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    started = host.row("VM_metrics", host.get("VM", vm, "metrics"))["start_time"]
    files = host.files()
    await host.call("VM.suspend", vm)
    record = host.row("VM", vm)
    assert (record["power_state"], record["domid"], record["resident_on"]) == ("Suspended", -1, NULL)
    assert (host.domids(), host.cards()) == (set(), set())
    image = host.row("VDI", record["suspend_VDI"])
    assert (image["type"], image["managed"]) == ("suspend", True)
    assert image["virtual_size"] > 0
    assert image["SR"] == host.get("pool", host.stack.pool, "suspend_image_SR")
    assert host.get("VBD", record["VBDs"][0], "currently_attached") is True
    assert "resume" in record["allowed_operations"]
    assert record["consoles"] == ()

    await host.clock.advance(100)
    await host.call("VM.resume", vm, False, False)
    record = host.row("VM", vm)
    assert (record["power_state"], record["suspend_VDI"]) == ("Running", NULL)
    assert host.domids() == {record["domid"]}
    assert host.files() == files
    assert host.row("VM_metrics", record["metrics"])["start_time"] == started


async def test_resume_paused(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    await host.call("VM.resume_on", vm, host.stack.host, True, False)
    assert host.power_state(vm) == "Paused"
    await host.call("VM.unpause", vm)
    assert host.power_state(vm) == "Running"


async def test_hard_shutdown_of_a_suspended_machine_drops_its_memory(host: World) -> None:
    vm = await host.machine()
    files = host.files()
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    await host.call("VM.hard_shutdown", vm)
    record = host.row("VM", vm)
    assert (record["power_state"], record["suspend_VDI"]) == ("Halted", NULL)
    assert host.files() == files
    assert host.get("VBD", record["VBDs"][0], "currently_attached") is False


async def test_a_suspended_machine_and_a_checkpoint_are_copied(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    checkpoint = await host.call("VM.checkpoint", vm, "kept")
    await host.call("VM.suspend", vm)
    for source in (vm, checkpoint):
        assert "copy" in host.get("VM", source, "allowed_operations")
        copied = await host.call("VM.copy", source, "copied", NULL)
        disk, original = (host.get("VBD", host.get("VM", ref, "VBDs")[0], "VDI") for ref in (copied, source))
        assert host.power_state(copied) == "Suspended"
        assert disk != original
    await host.call("VM.resume", vm, False, False)
    assert host.power_state(vm) == "Running"


async def test_a_disk_that_another_machine_writes_to_is_not_copied(host: World) -> None:
    vm, other = await host.machine(), await host.machine()
    disk = host.get("VBD", host.get("VM", vm, "VBDs")[0], "VDI")
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    with host.stack.database.transaction() as transaction:
        transaction.update("VBD", host.get("VM", other, "VBDs")[0], VDI=disk, currently_attached=True)
    with pytest.raises(ApiError) as caught:
        await host.call("VM.copy", vm, "copied", NULL)
    assert (caught.value.code, caught.value.params) == ("VDI_IN_USE", (disk, "copy"))


async def test_the_machines_own_repository_comes_first(host: World) -> None:
    vm = await host.machine()
    other = await host.call("SR.create", host.stack.host, {"location": "/x"}, "0", "b", "", "file", "user", False, {})
    await host.call("VM.set_suspend_SR", vm, other)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    assert host.get("VDI", host.get("VM", vm, "suspend_VDI"), "SR") == other


async def test_an_unusable_repository_is_passed_over_and_none_is_an_error(host: World) -> None:
    vm = await host.machine(disks=0)
    await host.call("VM.start", vm, False, False)
    for pbd in host.stack.database.refs("PBD"):
        host.change("PBD", pbd, currently_attached=False)
    assert await host.fails("VM.suspend", vm) == ("VM_NO_SUSPEND_SR", vm)
    assert host.power_state(vm) == "Running"


async def test_a_failing_save_lets_the_guest_go_on(host: World) -> None:
    vm = await host.machine(other_config={"sim:fail-save": "the disk is on fire"})
    await host.call("VM.start", vm, False, False)
    files = host.files()
    code, text = await host.fails("VM.suspend", vm)
    assert (code, text) == ("INTERNAL_ERROR", "the disk is on fire")
    assert (host.power_state(vm), host.get("VM", vm, "suspend_VDI")) == ("Running", NULL)
    assert host.files() == files
    assert host.domids() == {host.get("VM", vm, "domid")}


async def test_a_failing_restore_leaves_the_machine_suspended(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    await host.call("VM.add_to_other_config", vm, "sim:fail-restore", "no room")
    before = host.row("VM", vm)
    assert await host.fails("VM.resume", vm, False, False) == ("FAILED_TO_START_EMULATOR", vm, "sim", "no room")
    after = host.row("VM", vm)
    assert {name for name in before if before[name] != after[name]} == set()
    assert (host.domids(), host.cards()) == (set(), set())


async def test_resume_without_an_image(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    image = host.get("VM", vm, "suspend_VDI")
    await host.call("VDI.destroy", image)
    assert host.get("VM", vm, "suspend_VDI") == NULL
    assert await host.fails("VM.resume", vm, False, False) == ("VM_HAS_NO_SUSPEND_VDI", vm)


async def test_changes_while_suspended_do_not_change_the_saved_domain(host: World) -> None:
    vm = await host.machine(VCPUs_max=2)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    await host.call("VM.set_platform", vm, {"acpi": "0"})
    host.change("VM", vm, memory_static_max=1 << 30)
    await host.call("VM.resume", vm, False, False)
    assert host.power_state(vm) == "Running"


@pytest.mark.parametrize("method", ["VM.suspend", "VM.checkpoint"])
async def test_a_guest_may_say_that_it_cannot_be_saved(host: World, method: str) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    with host.stack.database.transaction() as transaction:
        guest = transaction.create("VM_guest_metrics", {"other": {"data-cant-suspend-reason": "it must not sleep"}})
        transaction.update("VM", vm, guest_metrics=guest)
    arguments = (vm, "name") if method == "VM.checkpoint" else (vm,)
    assert await host.fails(method, *arguments) == ("VM_NON_SUSPENDABLE", vm, "it must not sleep")


async def test_a_resumed_guest_has_the_memory_that_it_had(host: World) -> None:
    vm = await host.machine(memory_dynamic_min=64 * MIB)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.set_memory_target_live", vm, str(80 * MIB))
    await host.call("VM.suspend", vm)
    # Enough for the memory that was saved, not for all that the guest may have.
    enough = memory_held(host.row("VM", vm)) + host.get("host", host.stack.host, "memory_overhead")
    host.change("host_metrics", host.get("host", host.stack.host, "metrics"), memory_total=enough)
    await host.call("VM.resume", vm, False, False)
    record = host.row("VM", vm)
    assert record["memory_target"] == 80 * MIB
    assert host.get("VM_metrics", record["metrics"], "memory_actual") == 80 * MIB
    assert (await host.stack.hypervisor.statistics(record["domid"])).memory_actual == 80 * MIB
    await host.call("VM.hard_reboot", vm)
    assert host.get("VM", vm, "memory_target") == 128 * MIB
