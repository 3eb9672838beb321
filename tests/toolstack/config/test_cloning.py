"""Quick and full copies of machines."""

from __future__ import annotations

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.idl.types import NULL_REF, Ref
from tests.toolstack.devices.test_vbd import CD, cd_image
from tests.toolstack.devices.test_vdi import default_sr, disturb, iso_sr
from tests.toolstack.vm.world import MIB, World


def disks_of(host: World, vm: Ref) -> list[Ref]:
    return [host.get("VBD", vbd, "VDI") for vbd in host.get("VM", vm, "VBDs")]


def addresses(host: World, vm: Ref) -> list[str]:
    return [host.get("VIF", vif, "MAC") for vif in host.get("VM", vm, "VIFs")]


@pytest.mark.parametrize("operation", ["clone", "copy"])
async def test_a_copy_has_disks_and_addresses_of_its_own(host: World, operation: str) -> None:
    vm = await host.machine(disks=2, cards=2, name_label="original", tags=["a"], other_config={"key": "value"})
    disc = await cd_image(host)
    await host.call("VBD.create", {**CD, "VM": vm, "VDI": disc, "userdevice": "3"})
    await host.call("VM.add_to_blocked_operations", vm, "start", "because")
    params = (vm, "copy") if operation == "clone" else (vm, "copy", NULL_REF)
    made = await host.call(f"VM.{operation}", *params)
    row, source = host.row("VM", made), host.row("VM", vm)
    assert (row["name_label"], row["tags"], row["is_a_template"]) == ("copy", ("a",), False)
    assert row["uuid"] != source["uuid"]
    assert row["other_config"]["key"] == "value"
    assert row["other_config"]["mac_seed"] != source["other_config"]["mac_seed"]
    assert row["blocked_operations"] == {}
    assert row["metrics"] not in (NULL_REF, source["metrics"])
    assert [host.get("VBD", vbd, "userdevice") for vbd in row["VBDs"]] == ["0", "1", "3"]
    assert disks_of(host, made)[2] == disc
    assert set(disks_of(host, made)[:2]).isdisjoint(disks_of(host, vm))
    assert set(addresses(host, made)).isdisjoint(addresses(host, vm))
    assert "start" in row["allowed_operations"]
    await host.call("VM.start", made, False, False)


async def test_a_clone_of_a_default_template_is_an_ordinary_one(host: World) -> None:
    (template,) = await host.call("VM.get_by_name_label", "Tiny Linux")
    made = await host.call("VM.clone", template, "mine")
    row = host.row("VM", made)
    assert (row["is_a_template"], row["is_default_template"], row["reference_label"]) == (True, False, "tiny-linux")
    assert row["other_config"]["base_template_name"] == "Tiny Linux"
    assert "disks" in row["other_config"]
    assert {"default_template", "template_revision"}.isdisjoint(row["other_config"])
    assert {"provision", "destroy"} <= set(row["allowed_operations"])
    assert await host.fails("VM.destroy", template) == ("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", template)
    again = await host.call("VM.clone", made, "mine too")
    assert host.get("VM", again, "other_config")["base_template_name"] == "Tiny Linux"


async def test_running_machines_are_not_cloned(host: World) -> None:
    vm = await host.machine()
    await host.call("VM.start", vm, False, False)
    assert (await host.fails("VM.clone", vm, "x"))[:2] == ("VM_BAD_POWER_STATE", vm)


async def test_copies_go_where_they_are_wanted(host: World) -> None:
    vm = await host.machine()
    config = {"location": "elsewhere"}
    sr = await host.call("SR.create", host.stack.host, config, "0", "second", "", "file", "user", False, {})
    made = await host.call("VM.copy", vm, "copy", sr)
    assert {host.get("VDI", vdi, "SR") for vdi in disks_of(host, made)} == {sr}
    assert (await host.fails("VM.copy", vm, "copy", iso_sr(host)))[0] == "OPERATION_NOT_ALLOWED"


@pytest.mark.parametrize("step", ["copy disk 0", "copy disk 1", "record the machine"])
async def test_a_failed_copy_leaves_nothing(host: World, step: str) -> None:
    vm = await host.machine(disks=2)
    machines, disks, files = host.stack.database.refs("VM"), host.stack.database.refs("VDI"), host.files()

    def fail(name: str) -> None:
        if name == step:
            raise ApiError("INTERNAL_ERROR", name)

    token = before_step.set(fail)
    try:
        assert await host.fails("VM.clone", vm, "copy") == ("INTERNAL_ERROR", step)
    finally:
        before_step.reset(token)
    assert host.stack.database.refs("VM") == machines
    assert host.stack.database.refs("VDI") == disks
    assert host.files() == files
    assert host.get("VM", vm, "current_operations") == {}


async def test_a_cancelled_copy_leaves_nothing(host: World) -> None:
    vm = await host.machine(disks=2)
    disks = host.stack.database.refs("VDI")
    disturb(host, delay_copy_disk="10")
    task = await host.call("Async.VM.copy", vm, "copy", default_sr(host))
    await host.settle()
    await host.clock.advance(11)
    await host.settle()
    assert 0.4 < host.get("task", task, "progress") < 0.6
    await host.call("task.cancel", task)
    await host.settle()
    assert host.get("task", task, "status") == "cancelled"
    assert host.stack.database.refs("VDI") == disks
    assert await host.call("VM.get_by_name_label", "copy") == ()


async def test_the_clone_of_a_suspended_machine_is_suspended(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    fields = {"virtual_size": str(MIB), "type": "suspend", "sharable": False, "read_only": False}
    image = await host.call("VDI.create", {
        **fields, "name_label": "memory", "name_description": "", "SR": default_sr(host), "other_config": {},
    })  # fmt: skip
    host.change("VM", vm, power_state="Suspended", suspend_VDI=image, last_booted_record="{}")
    vbd, vif = host.get("VM", vm, "VBDs")[0], host.get("VM", vm, "VIFs")[0]
    host.change("VBD", vbd, currently_attached=True, device="xvda")
    host.change("VIF", vif, currently_attached=True)
    made = await host.call("VM.clone", vm, "copy")
    row = host.row("VM", made)
    assert row["power_state"] == "Suspended"
    assert row["suspend_VDI"] == image
    assert row["last_booted_record"] == "{}"
    assert addresses(host, made) == addresses(host, vm)
    assert host.get("VBD", row["VBDs"][0], "currently_attached") is True
    await host.call("VM.destroy", made)
    assert host.stack.database.find("VDI", image) is not None
    await host.call("VM.destroy", vm)
    assert host.stack.database.find("VDI", image) is None
