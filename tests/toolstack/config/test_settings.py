"""Setters of machines."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.idl.types import NULL_REF, Ref
from tests.toolstack.devices.test_vdi import disk
from tests.toolstack.vm.world import MIB, World


async def roomy(host: World, **fields: Any) -> Ref:
    """A machine with limits of 64, 96, 128 and 256 MiB."""
    return await host.machine(
        disks=0, cards=0, memory_static_min=64 * MIB, memory_dynamic_min=96 * MIB, memory_dynamic_max=128 * MIB,
        memory_static_max=256 * MIB, VCPUs_max=4, VCPUs_at_startup=2, **fields,
    )  # fmt: skip


def limits(host: World, vm: Ref) -> list[int]:
    """In MiB, and the target."""
    names = ("memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max", "memory_target")
    return [host.get("VM", vm, name) // MIB for name in names]


SETTERS: list[tuple[str, list[int], list[int] | None]] = [
    ("set_memory_static_max", [192], [64, 96, 128, 192, 128]),
    ("set_memory_static_max", [100], None),
    ("set_memory_static_min", [96], [96, 96, 128, 256, 128]),
    ("set_memory_static_min", [97], None),
    ("set_memory_static_range", [32, 512], [32, 96, 128, 512, 128]),
    ("set_memory_limits", [16, 64, 32, 48], [16, 32, 48, 64, 48]),
    ("set_memory_limits", [16, 64, 48, 32], None),
    ("set_memory", [100], [64, 100, 100, 100, 100]),
    ("set_memory", [32], None),
    ("set_memory_dynamic_max", [200], [64, 96, 200, 256, 200]),
    ("set_memory_dynamic_max", [300], None),
    ("set_memory_dynamic_min", [64], [64, 64, 128, 256, 128]),
    ("set_memory_dynamic_min", [63], None),
    ("set_memory_dynamic_range", [128, 256], [64, 128, 256, 256, 256]),
]


async def test_memory_of_a_halted_machine(host: World) -> None:
    for setter, values, expected in SETTERS:
        vm = await roomy(host)
        params = [str(value * MIB) for value in values]
        if expected is None:
            assert await host.fails(f"VM.{setter}", vm, *params) == ("MEMORY_CONSTRAINT_VIOLATION_ORDER",)
            assert limits(host, vm) == [64, 96, 128, 256, 128]
        else:
            await host.call(f"VM.{setter}", vm, *params)
            assert limits(host, vm) == expected, setter


async def test_a_running_guest_follows_its_dynamic_range(host: World) -> None:
    vm = await roomy(host)
    await host.call("VM.start", vm, False, False)
    domain = host.hypervisor._domains[host.get("VM", vm, "domid")]
    await host.call("VM.set_memory_dynamic_range", vm, str(64 * MIB), str(80 * MIB))
    assert domain.memory_actual == 80 * MIB
    assert limits(host, vm) == [64, 64, 80, 256, 80]
    assert (await host.fails("VM.set_memory_static_max", vm, str(300 * MIB)))[0] == "VM_BAD_POWER_STATE"


async def test_a_balloon_that_fails_changes_nothing(host: World) -> None:
    vm = await roomy(host, other_config={"sim:fail-memory": "stuck", "mac_seed": "s"})
    await host.call("VM.start", vm, False, False)
    assert (await host.fails("VM.set_memory_dynamic_max", vm, str(96 * MIB)))[0] == "INTERNAL_ERROR"
    assert limits(host, vm)[:4] == [64, 96, 128, 256]


async def test_processors(host: World) -> None:
    vm = await roomy(host)
    await host.call("VM.set_VCPUs_max", vm, "8")
    await host.call("VM.set_VCPUs_at_startup", vm, "8")
    assert (host.get("VM", vm, "VCPUs_max"), host.get("VM", vm, "VCPUs_at_startup")) == (8, 8)
    assert await host.fails("VM.set_VCPUs_max", vm, "7") == ("INVALID_VALUE", "VCPUs_max", "7")
    assert await host.fails("VM.set_VCPUs_at_startup", vm, "9") == ("INVALID_VALUE", "VCPUs_at_startup", "9")
    assert await host.fails("VM.set_VCPUs_at_startup", vm, "0") == ("INVALID_VALUE", "VCPUs_at_startup", "0")


async def test_the_control_domain_is_left_alone(host: World) -> None:
    control = host.get("host", host.stack.host, "control_domain")
    for method, value in (("set_VCPUs_max", "64"), ("set_memory_dynamic_max", str(MIB)), ("set_appliance", NULL_REF)):
        assert (await host.fails(f"VM.{method}", control, value))[0] == "OPERATION_NOT_ALLOWED"


async def test_kind_and_boot_policy_follow_each_other(host: World) -> None:
    vm = await roomy(host)
    await host.call("VM.set_HVM_boot_policy", vm, "BIOS order")
    assert host.get("VM", vm, "domain_type") == "hvm"
    await host.call("VM.set_domain_type", vm, "pv")
    assert host.get("VM", vm, "HVM_boot_policy") == ""
    await host.call("VM.set_domain_type", vm, "hvm")
    assert host.get("VM", vm, "HVM_boot_policy") == "BIOS order"
    await host.call("VM.set_HVM_boot_policy", vm, "")
    assert host.get("VM", vm, "domain_type") == "pv"
    await host.call("VM.start", vm, False, False)
    assert await host.fails("VM.set_domain_type", vm, "hvm") == ("VM_BAD_POWER_STATE", vm, "halted", "running")


@pytest.mark.parametrize("field", ["order", "start_delay", "shutdown_delay"])
async def test_places_in_sequences(host: World, field: str) -> None:
    vm = await roomy(host)
    await host.call(f"VM.set_{field}", vm, "5")
    assert host.get("VM", vm, field) == 5
    assert await host.fails(f"VM.set_{field}", vm, "-1") == ("INVALID_VALUE", field, "-1")


async def test_plain_settings(host: World) -> None:
    vm = await roomy(host)
    await host.call("VM.set_actions_after_crash", vm, "preserve")
    assert host.get("VM", vm, "actions_after_crash") == "preserve"
    assert (await host.fails("VM.set_actions_after_crash", vm, "explode"))[0] == "INVALID_VALUE"
    await host.call("VM.set_HVM_shadow_multiplier", vm, 1.5)
    assert host.get("VM", vm, "HVM_shadow_multiplier") == 1.5
    # A factor of 1e308 would make sizes that are no numbers any more.
    for value in (0.9, 1000.1, 1e308):
        assert await host.fails("VM.set_HVM_shadow_multiplier", vm, value) == (
            "INVALID_VALUE", "HVM_shadow_multiplier", str(value),
        )  # fmt: skip
    await host.call("VM.set_ha_restart_priority", vm, "restart")
    assert host.get("VM", vm, "ha_always_run") is True
    await host.call("VM.set_ha_always_run", vm, False)
    assert host.get("VM", vm, "ha_restart_priority") == ""
    assert (await host.fails("VM.set_ha_restart_priority", vm, "always"))[0] == "INVALID_VALUE"
    await host.call("VM.set_has_vendor_device", vm, False)
    assert (await host.fails("VM.set_has_vendor_device", vm, True))[0] == "VALUE_NOT_SUPPORTED"
    assert (await host.fails("VM.set_snapshot_schedule", vm, "OpaqueRef:none"))[:2] == ("HANDLE_INVALID", "VMSS")


async def test_blocked_operations_show_at_once(host: World) -> None:
    vm = await roomy(host)
    await host.call("VM.add_to_blocked_operations", vm, "start", "being repaired")
    assert "start" not in host.get("VM", vm, "allowed_operations")
    assert await host.fails("VM.start", vm, False, False) == ("OPERATION_BLOCKED", vm, "being repaired")
    assert (await host.fails("VM.add_to_blocked_operations", vm, "start", "twice"))[0] == "MAP_DUPLICATE_KEY"
    await host.call("VM.remove_from_blocked_operations", vm, "start")
    await host.call("VM.remove_from_blocked_operations", vm, "start")
    assert "start" in host.get("VM", vm, "allowed_operations")
    await host.call("VM.set_blocked_operations", vm, {"destroy": "mine"})
    assert await host.fails("VM.destroy", vm) == ("OPERATION_BLOCKED", vm, "mine")


async def test_templates_and_machines_turn_into_each_other(host: World) -> None:
    vm = await roomy(host)
    await host.call("VM.set_ha_restart_priority", vm, "restart")
    await host.call("VM.set_is_a_template", vm, True)
    assert host.get("VM", vm, "ha_restart_priority") == ""
    assert "start" not in host.get("VM", vm, "allowed_operations")
    assert await host.fails("VM.start", vm, False, False) == ("VM_IS_TEMPLATE", vm)
    await host.clock.advance(3600)
    await host.call("VM.set_is_a_template", vm, False)
    assert host.get("VM_metrics", host.get("VM", vm, "metrics"), "install_time") == "20110930T01:00:00Z"
    await host.call("VM.start", vm, False, False)
    assert (await host.fails("VM.set_is_a_template", vm, True))[:2] == ("VM_BAD_POWER_STATE", vm)
    (default,) = await host.call("VM.get_by_name_label", "Tiny Linux")
    assert (await host.fails("VM.set_is_a_template", default, False))[0] == "OPERATION_NOT_ALLOWED"


async def test_bios_strings_are_set_once(host: World) -> None:
    vm = await roomy(host)
    for strings in (
        {"bios-colour": "red"},
        {"bios-vendor": " padded"},
        {"bios-vendor": "x" * 600},
        {"bios-vendor": ""},
    ):
        ((key, _),) = strings.items()
        assert (await host.fails("VM.set_bios_strings", vm, strings))[:2] == ("INVALID_VALUE", key)
    await host.call("VM.set_bios_strings", vm, {"bios-vendor": "Acme"})
    assert host.get("VM", vm, "bios_strings")["bios-vendor"] == "Acme"
    assert await host.fails("VM.set_bios_strings", vm, {}) == ("VM_BIOS_STRINGS_ALREADY_SET",)
    assert await host.fails("VM.copy_bios_strings", vm, host.stack.host) == ("VM_BIOS_STRINGS_ALREADY_SET",)
    other = await roomy(host)
    await host.call("VM.copy_bios_strings", other, host.stack.host)
    strings = host.get("host", host.stack.host, "bios_strings")
    assert strings.items() <= host.get("VM", other, "bios_strings").items()


async def test_the_image_of_a_suspended_machine(host: World) -> None:
    vm = await roomy(host)
    image, data = await disk(host, type="suspend"), await disk(host)
    assert await host.fails("VM.set_suspend_VDI", vm, image) == ("VM_BAD_POWER_STATE", vm, "suspended", "halted")
    host.change("VM", vm, power_state="Suspended")
    assert await host.fails("VM.set_suspend_VDI", vm, data) == ("VDI_INCOMPATIBLE_TYPE", data, "user")
    await host.call("VM.set_suspend_VDI", vm, image)
    other = await roomy(host)
    host.change("VM", other, power_state="Suspended")
    assert await host.fails("VM.set_suspend_VDI", other, image) == ("VDI_IN_USE", image, "set_suspend_VDI")


async def test_a_guest_without_power_button_and_agent_is_not_asked_to_shut_down(host: World) -> None:
    """What a machine allows follows its platform at once."""
    vm = await host.machine(disks=0, cards=0)
    await host.call("VM.start", vm, False, False)
    assert "clean_shutdown" in host.get("VM", vm, "allowed_operations")
    await host.call("VM.set_platform", vm, {"acpi": "0"})
    assert {"clean_shutdown", "clean_reboot"}.isdisjoint(host.get("VM", vm, "allowed_operations"))
    assert await host.fails("VM.clean_shutdown", vm) == ("VM_MISSING_PV_DRIVERS", vm)
    await host.call("VM.remove_from_platform", vm, "acpi")
    assert "clean_reboot" in host.get("VM", vm, "allowed_operations")
    assert await host.fails("VM.add_to_platform", NULL_REF, "acpi", "0") == ("HANDLE_INVALID", "VM", NULL_REF)


async def test_a_template_becomes_the_pools_by_its_mark(host: World) -> None:
    vm = await host.machine(disks=0, cards=0, template=True)
    await host.call("VM.add_to_other_config", vm, "default_template", "true")
    assert "destroy" not in host.get("VM", vm, "allowed_operations")
    await host.call("VM.remove_from_other_config", vm, "default_template")
    assert "destroy" in host.get("VM", vm, "allowed_operations")
