"""From a clone of a template to a machine."""

from __future__ import annotations

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.idl.types import NULL_REF, Ref
from tests.toolstack.devices.test_vdi import default_sr, disturb
from tests.toolstack.vm.world import MIB, World

PLAN = (
    '<provision><disk device="0" size="8388608" sr="" bootable="true" type="system"/>'
    '<disk device="1" size="4194304" sr="{sr}" bootable="false" type="user"/></provision>'
)


async def planned(host: World, plan: str) -> Ref:
    """A template with such a plan."""
    return await host.machine(disks=0, template=True, other_config={"disks": plan, "mac_seed": "s", "key": "value"})


async def test_the_disks_of_the_plan_are_made(host: World) -> None:
    sr = default_sr(host)
    vm = await planned(host, PLAN.format(sr=host.get("SR", sr, "uuid")))
    await host.call("VM.provision", vm)
    row = host.row("VM", vm)
    assert row["is_a_template"] is False
    assert row["other_config"] == {"mac_seed": "s", "key": "value"}
    drives = [host.row("VBD", vbd) for vbd in row["VBDs"]]
    assert [(drive["userdevice"], drive["bootable"], drive["mode"]) for drive in drives] == [
        ("0", True, "RW"), ("1", False, "RW"),
    ]  # fmt: skip
    assert all("owner" in drive["other_config"] for drive in drives)
    disks = [host.row("VDI", drive["VDI"]) for drive in drives]
    assert [(disk["virtual_size"], disk["type"], disk["name_label"]) for disk in disks] == [
        (8 * MIB, "system", "0"), (4 * MIB, "user", "1"),
    ]  # fmt: skip
    await host.call("VM.start", vm, False, False)


async def test_the_guides_walk(host: World) -> None:
    templates = await host.call("VM.get_all_records")
    (template,) = [ref for ref, record in templates.items() if record["name_label"] == "Tiny Linux"]
    vm = await host.call("VM.clone", template, "walk")
    network = host.stack.database.refs("network")[0]
    await host.call("VIF.create", {
        "device": "0", "network": network, "VM": vm, "MAC": "", "MTU": "1500", "other_config": {},
        "qos_algorithm_type": "", "qos_algorithm_params": {},
    })  # fmt: skip
    await host.call("VM.provision", vm)
    await host.call("VM.start", vm, False, False)
    assert host.power_state(vm) == "Running"
    assert len(host.get("VM", vm, "VBDs")) == 1
    assert await host.fails("VM.provision", vm) == ("VM_BAD_POWER_STATE", vm, "halted", "running")


async def test_refusals(host: World) -> None:
    (default,) = await host.call("VM.get_by_name_label", "Tiny Linux")
    assert (await host.fails("VM.provision", default))[0] == "OPERATION_NOT_ALLOWED"
    machine = await host.machine(disks=0, cards=0)
    assert await host.fails("VM.provision", machine) == ("PROVISION_ONLY_ALLOWED_ON_TEMPLATE",)
    unknown = "11111111-2222-4333-8444-555555555555"
    vm = await planned(host, PLAN.format(sr=unknown))
    assert await host.fails("VM.provision", vm) == ("UUID_INVALID", "SR", unknown)
    broken = await planned(host, "<provision>")
    assert (await host.fails("VM.provision", broken))[:2] == ("INVALID_VALUE", "other_config:disks")
    scripted = await host.machine(disks=0, template=True, other_config={"postinstall": "x", "mac_seed": "s"})
    assert (await host.fails("VM.provision", scripted))[0] == "OPERATION_NOT_ALLOWED"
    taken = await host.machine(disks=1, template=True, other_config={"disks": PLAN.format(sr=""), "mac_seed": "s"})
    assert await host.fails("VM.provision", taken) == ("DEVICE_ALREADY_EXISTS", "0")
    host.change("pool", host.stack.pool, default_SR=NULL_REF)
    vm = await planned(host, PLAN.format(sr=""))
    assert await host.fails("VM.provision", vm) == ("DEFAULT_SR_NOT_FOUND", NULL_REF)
    assert all(host.get("VM", ref, "is_a_template") for ref in (vm, taken, scripted, broken))


async def test_a_template_without_a_plan_just_becomes_a_machine(host: World) -> None:
    vm = await host.machine(disks=1, template=True)
    await host.call("VM.provision", vm)
    assert host.get("VM", vm, "is_a_template") is False


async def test_a_full_medium(host: World) -> None:
    vm = await planned(host, PLAN.format(sr=""))
    disturb(host, fail_create_disk="44 full")
    assert await host.fails("VM.provision", vm) == ("PROVISION_FAILED_OUT_OF_SPACE",)
    assert host.get("VM", vm, "is_a_template") is True


@pytest.mark.parametrize("step", ["make disk 0", "make disk 1", "record the machine"])
async def test_a_failure_changes_nothing(host: World, step: str) -> None:
    vm = await planned(host, PLAN.format(sr=""))
    files = host.files()

    def fail(name: str) -> None:
        if name == step:
            raise ApiError("INTERNAL_ERROR", name)

    token = before_step.set(fail)
    try:
        assert await host.fails("VM.provision", vm) == ("INTERNAL_ERROR", step)
    finally:
        before_step.reset(token)
    assert host.files() == files
    assert host.stack.database.refs("VDI") == ()
    assert host.get("VM", vm, "VBDs") == ()
    assert host.get("VM", vm, "is_a_template") is True
    assert "disks" in host.get("VM", vm, "other_config")
