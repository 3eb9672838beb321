"""Machines made from records, and destroyed."""

from __future__ import annotations

from domzero.idl.types import NULL_REF
from tests.toolstack.vm.world import MACHINE, MIB, World


async def test_a_new_machine(host: World) -> None:
    vm = await host.call("VM.create", MACHINE)
    row = host.row("VM", vm)
    assert (row["power_state"], row["domid"], row["resident_on"]) == ("Halted", -1, NULL_REF)
    assert len(row["other_config"]["mac_seed"]) == 36
    assert row["memory_target"] == row["memory_dynamic_max"]
    metrics = host.row("VM_metrics", row["metrics"])
    assert (metrics["install_time"], metrics["start_time"]) == ("20110930T00:00:00Z", "19700101T00:00:00Z")
    assert {"start", "clone", "destroy"} <= set(row["allowed_operations"])
    assert await host.call("VM.get_by_name_label", "a machine") == (vm,)


async def test_a_given_seed_stays_and_power_states_are_not_believed(host: World) -> None:
    args = {**MACHINE, "other_config": {"mac_seed": "mine"}, "power_state": "Running", "domain_type": "hvm"}
    vm = await host.call("VM.create", args)
    assert host.get("VM", vm, "other_config") == {"mac_seed": "mine"}
    assert host.power_state(vm) == "Halted"


async def test_kind_and_boot_policy_agree(host: World) -> None:
    for given, expected in (
        ({"HVM_boot_policy": "BIOS order"}, ("hvm", "BIOS order")),
        ({"HVM_boot_policy": ""}, ("pv", "")),
        ({"domain_type": "hvm"}, ("hvm", "BIOS order")),
        ({"domain_type": "pvh", "HVM_boot_policy": "BIOS order"}, ("pvh", "")),
    ):
        vm = await host.call("VM.create", {**MACHINE, **given})
        assert (host.get("VM", vm, "domain_type"), host.get("VM", vm, "HVM_boot_policy")) == expected


async def test_impossible_machines(host: World) -> None:
    for fields, error in (
        ({"memory_static_min": 200 * MIB}, ("MEMORY_CONSTRAINT_VIOLATION_ORDER",)),
        ({"memory_dynamic_max": 200 * MIB}, ("MEMORY_CONSTRAINT_VIOLATION_ORDER",)),
        ({"VCPUs_at_startup": 2}, ("INVALID_VALUE", "VCPUs_at_startup", "2")),
        ({"VCPUs_at_startup": 0}, ("INVALID_VALUE", "VCPUs_at_startup", "0")),
        ({"VCPUs_max": 0, "VCPUs_at_startup": 0}, ("INVALID_VALUE", "VCPUs_max", "0")),
        ({"HVM_shadow_multiplier": 0.5}, ("INVALID_VALUE", "HVM_shadow_multiplier", "0.5")),
        ({"HVM_shadow_multiplier": 1e308}, ("INVALID_VALUE", "HVM_shadow_multiplier", "1e+308")),
        ({"appliance": "OpaqueRef:none"}, ("HANDLE_INVALID", "VM_appliance", "OpaqueRef:none")),
    ):
        assert await host.fails("VM.create", {**MACHINE, **fields}) == error
    assert await host.call("VM.get_by_name_label", "a machine") == ()


async def test_destroying_keeps_the_disks(host: World) -> None:
    vm = await host.machine(disks=2, cards=2)
    disks = [host.get("VBD", vbd, "VDI") for vbd in host.get("VM", vm, "VBDs")]
    before = {name: set(host.stack.database.refs(name)) for name in ("VM_metrics", "console")}
    await host.call("VM.destroy", vm)
    assert host.stack.database.find("VM", vm) is None
    for name in ("VBD", "VIF", "VBD_metrics", "VIF_metrics"):
        assert host.stack.database.refs(name) == ()
    assert len(before["VM_metrics"] - set(host.stack.database.refs("VM_metrics"))) == 1
    assert sorted(host.stack.database.refs("VDI")) == sorted(disks)
    assert all("destroy" in host.get("VDI", vdi, "allowed_operations") for vdi in disks)


async def test_what_runs_is_not_destroyed(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    assert (await host.fails("VM.destroy", vm))[:2] == ("VM_BAD_POWER_STATE", vm)


async def test_the_family_of_a_destroyed_machine_gets_on(host: World) -> None:
    parent, vm, child = [await host.machine(disks=0, cards=0) for _ in range(3)]
    host.change("VM", vm, parent=parent)
    host.change("VM", child, parent=vm, snapshot_of=vm, is_a_snapshot=True, is_a_template=True)
    await host.call("VM.destroy", vm)
    assert (host.get("VM", child, "parent"), host.get("VM", child, "snapshot_of")) == (parent, NULL_REF)
    assert host.get("VM", parent, "children") == (child,)
