"""Snapshots, checkpoints and the way back."""

from __future__ import annotations

from tests.toolstack.vm.world import World

NULL = "OpaqueRef:NULL"


async def test_a_snapshot_is_a_template_with_disks_of_its_own(host: World) -> None:
    vm = await host.machine(disks=2)
    await host.call("VM.start", vm, False, False)
    taken = await host.call("VM.snapshot", vm, "first", [])
    machine, snapshot = host.row("VM", vm), host.row("VM", taken)
    assert (snapshot["is_a_snapshot"], snapshot["is_a_template"], snapshot["snapshot_of"]) == (True, True, vm)
    assert (snapshot["name_label"], snapshot["power_state"]) == ("first", "Halted")
    assert snapshot["snapshot_time"] == "20110930T00:00:00Z"
    assert snapshot["snapshot_info"]["power-state-at-snapshot"] == "Running"
    assert (snapshot["suspend_VDI"], snapshot["domid"], snapshot["resident_on"]) == (NULL, -1, NULL)
    assert (machine["power_state"], machine["parent"], machine["snapshots"]) == ("Running", taken, (taken,))
    assert "revert" in snapshot["allowed_operations"]
    for own, captured in zip(machine["VBDs"], snapshot["VBDs"], strict=True):
        original, copy = host.get("VBD", own, "VDI"), host.get("VBD", captured, "VDI")
        assert (host.get("VDI", copy, "is_a_snapshot"), host.get("VDI", copy, "snapshot_of")) == (True, original)
        assert host.get("VBD", captured, "currently_attached") is False
    macs = [host.get("VIF", vif, "MAC") for vif in (*machine["VIFs"], *snapshot["VIFs"])]
    assert macs[0] == macs[1]


async def test_snapshots_form_a_chain(host: World) -> None:
    vm = await host.machine()
    first = await host.call("VM.snapshot", vm, "first", [])
    second = await host.call("VM.snapshot", vm, "second", [])
    assert (host.get("VM", first, "parent"), host.get("VM", second, "parent")) == (NULL, first)
    assert host.get("VM", vm, "parent") == second
    assert host.get("VM", first, "children") == (second,)
    await host.call("VM.revert", first)
    assert host.get("VM", vm, "parent") == first


async def test_disks_can_be_left_out(host: World) -> None:
    vm = await host.machine(disks=2)
    left_out = host.get("VBD", host.get("VM", vm, "VBDs")[0], "VDI")
    taken = await host.call("VM.snapshot", vm, "partly", [left_out])
    assert len(host.get("VM", taken, "VBDs")) == 1
    await host.call("VM.revert", taken)
    assert host.get("VDI", left_out, "VBDs") == ()


async def test_a_guest_stands_still_while_its_disks_are_taken(host: World) -> None:
    vm = await host.machine(disks=2, other_config={"sim:step": "true"})
    start = host.begin("VM.start", vm, False, False)
    await host.settle()
    host.hypervisor.step()
    await start
    call = host.begin("VM.snapshot", vm, "still", [])
    seen = []
    while not call.done():
        await host.settle()
        verb = host.hypervisor.step()
        if verb is not None:
            seen.append(verb.verb)
    await call
    assert seen == ["pause", "switch-disk", "switch-disk", "unpause"]
    assert host.power_state(vm) == "Running"


async def test_a_failing_snapshot_leaves_nothing_and_the_guest_goes_on(host: World) -> None:
    vm = await host.machine(disks=2, other_config={"sim:fail-switch-disk": "no"})
    await host.call("VM.start", vm, False, False)
    files, machines = host.files(), host.stack.database.refs("VM")
    assert (await host.fails("VM.snapshot", vm, "never", []))[0] == "INTERNAL_ERROR"
    await host.settle()
    assert (host.files(), host.stack.database.refs("VM")) == (files, machines)
    assert host.power_state(vm) == "Running"
    assert (await host.stack.hypervisor.status(host.get("VM", vm, "domid"))).state.value == "running"


async def test_revert_brings_back_disks_and_settings(host: World) -> None:
    vm = await host.machine(name_label="before")
    disk = host.get("VBD", host.get("VM", vm, "VBDs")[0], "VDI")
    taken = await host.call("VM.snapshot", vm, "then", [])
    captured = host.get("VBD", host.get("VM", taken, "VBDs")[0], "VDI")
    await host.call("VM.set_name_label", vm, "after")
    await host.call("VM.set_VCPUs_max", vm, 3)
    await host.call("VM.start", vm, False, False)
    await host.call("VM.revert", taken)
    record = host.row("VM", vm)
    assert (record["name_label"], record["VCPUs_max"], record["power_state"]) == ("before", 1, "Halted")
    assert (host.domids(), host.cards()) == (set(), set())
    fresh = host.get("VBD", record["VBDs"][0], "VDI")
    assert host.stack.database.find("VDI", disk) is None
    assert fresh not in (disk, captured)
    assert host.get("VDI", fresh, "is_a_snapshot") is False
    assert host.get("VDI", captured, "snapshot_of") == fresh
    assert host.get("VM", taken, "snapshot_of") == vm
    await host.call("VM.start", vm, False, False)
    assert host.power_state(vm) == "Running"


async def test_a_checkpoint_holds_memory_and_the_guest_goes_on(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    domid = host.get("VM", vm, "domid")
    taken = await host.call("VM.checkpoint", vm, "with memory")
    snapshot = host.row("VM", taken)
    assert (host.power_state(vm), host.get("VM", vm, "domid")) == ("Running", domid)
    assert host.get("VM", vm, "suspend_VDI") == NULL
    assert snapshot["power_state"] == "Suspended"
    assert host.get("VDI", snapshot["suspend_VDI"], "type") == "suspend"
    assert (await host.stack.hypervisor.status(domid)).state.value == "running"
    for _ in range(2):
        await host.call("VM.revert", taken)
        assert (host.power_state(vm), host.domids()) == ("Suspended", set())
        await host.call("VM.resume", vm, False, False)
        assert host.power_state(vm) == "Running"
    assert host.stack.database.find("VDI", snapshot["suspend_VDI"]) is not None


async def test_a_suspended_machine_shares_its_memory_with_its_checkpoint(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    await host.call("VM.suspend", vm)
    taken = await host.call("VM.checkpoint", vm, "asleep")
    image = host.get("VM", vm, "suspend_VDI")
    assert host.get("VM", taken, "suspend_VDI") == image
    other = await host.call("VM.checkpoint", vm, "asleep too")
    await host.call("VM.destroy", other)
    await host.call("VM.resume", vm, False, False)
    assert host.stack.database.find("VDI", image) is not None
    await host.call("VM.destroy", taken)
    assert host.stack.database.find("VDI", image) is None


async def test_a_checkpoint_whose_save_fails(host: World) -> None:
    vm = await host.machine(other_config={"sim:fail-save": "no"})
    await host.call("VM.start", vm, False, False)
    files = host.files()
    assert await host.fails("VM.checkpoint", vm, "never") == ("VM_CHECKPOINT_SUSPEND_FAILED", vm)
    assert (host.files(), host.power_state(vm)) == (files, "Running")


async def test_only_snapshots_of_living_machines_can_be_gone_back_to(host: World) -> None:
    vm = await host.machine()
    assert await host.fails("VM.revert", vm) == ("REVERT_ONLY_ALLOWED_ON_SNAPSHOT",)
    taken = await host.call("VM.snapshot", vm, "orphan", [])
    await host.call("VM.destroy", vm)
    assert await host.fails("VM.revert", taken) == ("VM_REVERT_FAILED", NULL, taken)


async def test_a_snapshot_can_be_cloned_and_started(host: World) -> None:
    vm = await host.machine()
    taken = await host.call("VM.snapshot", vm, "source", [])
    clone = await host.call("VM.clone", taken, "copy")
    await host.call("VM.set_is_a_template", clone, False)
    await host.call("VM.start", clone, False, False)
    assert host.power_state(clone) == "Running"


async def test_a_checkpoint_can_be_cloned_and_resumed(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    taken = await host.call("VM.checkpoint", vm, "source")
    await host.call("VM.hard_shutdown", vm)
    clone = await host.call("VM.clone", taken, "copy")
    await host.call("VM.set_is_a_template", clone, False)
    await host.call("VM.resume", clone, False, False)
    assert host.power_state(clone) == "Running"
