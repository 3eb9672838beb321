"""Drives through the API."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.idl.types import NULL_REF, Ref
from tests.toolstack.devices.test_vdi import default_sr, disk, iso_sr
from tests.toolstack.vm.world import DRIVE, MIB, World

CD: dict[str, Any] = {**DRIVE, "type": "CD", "mode": "RO", "bootable": False}


async def cd_image(host: World) -> Ref:
    """A disc in the library of CD images."""
    sr = iso_sr(host)
    directory = host.stack.settings.state_dir / "iso"
    (directory / f"disc{len(host.stack.database.refs('VDI'))}.iso").write_bytes(b"\0" * MIB)
    before = set(host.stack.database.refs("VDI"))
    await host.call("SR.scan", sr)
    (made,) = set(host.stack.database.refs("VDI")) - before
    return made


async def test_a_new_drive(host: World) -> None:
    vm = await host.machine(disks=0)
    vdi = await disk(host)
    vbd = await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "autodetect", "device": "xvdz"})
    row = host.row("VBD", vbd)
    assert (row["userdevice"], row["device"], row["currently_attached"], row["empty"]) == ("0", "", False, False)
    assert host.stack.database.find("VBD_metrics", row["metrics"]) is not None
    assert (host.get("VM", vm, "VBDs"), host.get("VDI", vdi, "VBDs")) == ((vbd,), (vbd,))
    assert "attach" in row["allowed_operations"]
    assert "plug" not in row["allowed_operations"]


async def test_positions(host: World) -> None:
    vm = await host.machine(disks=1, cards=0)
    vdi = await disk(host)
    for userdevice, position in {"autodetect": "1", "hdd": "3", "xvdc": "2", "15": "15"}.items():
        args = {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": userdevice}
        assert host.get("VBD", await host.call("VBD.create", args), "userdevice") == position
    for userdevice in ("0", "xvda", "15", "hdd"):
        args = {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": userdevice}
        assert await host.fails("VBD.create", args) == ("DEVICE_ALREADY_EXISTS", userdevice)
    for userdevice in ("16", "nonsense", ""):
        args = {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": userdevice}
        assert await host.fails("VBD.create", args) == ("INVALID_DEVICE", userdevice)
    assert await host.call("VM.get_allowed_VBD_devices", vm) == tuple(str(n) for n in range(4, 15))


async def test_drives_that_make_no_sense(host: World) -> None:
    vm = await host.machine(disks=0, cards=0)
    vdi, disc = await disk(host), await cd_image(host)
    at = {"VM": vm, "userdevice": "autodetect"}
    refused = {
        "VBD_CDS_MUST_BE_READONLY": {**CD, **at, "VDI": disc, "mode": "RW"},
        "VDI_IS_NOT_ISO": {**CD, **at, "VDI": vdi},
        "VDI_READONLY": {**DRIVE, **at, "VDI": disc},
        "VBD_NOT_REMOVABLE_MEDIA": {**DRIVE, **at, "VDI": NULL_REF, "empty": True},
        "HANDLE_INVALID": {**DRIVE, **at, "VDI": "OpaqueRef:none"},
    }
    for code, args in refused.items():
        assert (await host.fails("VBD.create", args))[0] == code
    assert host.get("VM", vm, "VBDs") == ()
    host.change("VDI", vdi, managed=False)
    assert await host.fails("VBD.create", {**DRIVE, **at, "VDI": vdi}) == ("VDI_NOT_MANAGED", vdi)


async def test_plugging_into_a_running_machine_and_out_again(host: World) -> None:
    vm = await host.machine(disks=1, cards=0)
    await host.call("VM.start", vm, False, False)
    domain = host.hypervisor._domains[host.get("VM", vm, "domid")]
    vdi = await disk(host)
    vbd = await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "5"})
    assert "plug" in host.get("VBD", vbd, "allowed_operations")
    await host.call("VBD.plug", vbd)
    assert sorted(domain.disks) == [0, 5]
    row = host.row("VBD", vbd)
    assert (row["currently_attached"], row["device"]) == (True, "xvdf")
    assert {"unplug", "unplug_force"} <= set(row["allowed_operations"])
    assert "destroy" not in host.get("VDI", vdi, "allowed_operations")
    assert await host.fails("VBD.plug", vbd) == ("DEVICE_ALREADY_ATTACHED", vbd)
    assert (await host.fails("VBD.destroy", vbd))[0] == "OPERATION_NOT_ALLOWED"
    await host.call("VBD.unplug", vbd)
    assert sorted(domain.disks) == [0]
    assert await host.fails("VBD.unplug", vbd) == ("DEVICE_ALREADY_DETACHED", vbd)
    assert "destroy" in host.get("VDI", vdi, "allowed_operations")
    await host.call("VBD.destroy", vbd)
    assert host.stack.database.find("VBD", vbd) is None


async def test_a_guest_that_does_not_let_go(host: World) -> None:
    vm = await host.machine(disks=1, cards=0, other_config={"sim:ignore-unplug": "yes", "mac_seed": "s"})
    await host.call("VM.start", vm, False, False)
    vbd = host.get("VM", vm, "VBDs")[0]
    assert await host.fails("VBD.unplug", vbd) == ("DEVICE_DETACH_TIMEOUT", "VBD", vbd)
    assert host.get("VBD", vbd, "currently_attached") is True
    await host.call("VBD.unplug_force", vbd)
    assert host.get("VBD", vbd, "currently_attached") is False


async def test_a_hypervisor_that_refuses(host: World) -> None:
    config = {"sim:fail-plug-disk": "no slot", "sim:fail-unplug-disk": "busy", "mac_seed": "s"}
    vm = await host.machine(disks=1, cards=0, other_config=config)
    await host.call("VM.start", vm, False, False)
    first = host.get("VM", vm, "VBDs")[0]
    assert await host.fails("VBD.unplug", first) == ("DEVICE_DETACH_REJECTED", "VBD", first, "busy")
    vbd = await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": await disk(host), "userdevice": "1"})
    assert (await host.fails("VBD.plug", vbd))[0] == "INTERNAL_ERROR"
    assert host.get("VBD", vbd, "currently_attached") is False


async def test_hot_plug_needs_a_running_machine(host: World) -> None:
    vm = await host.machine(disks=1, cards=0)
    vbd = host.get("VM", vm, "VBDs")[0]
    for operation in ("plug", "unplug", "unplug_force"):
        assert await host.fails(f"VBD.{operation}", vbd) == ("VM_BAD_POWER_STATE", vm, "running", "halted")


async def test_a_drive_may_refuse_to_be_unplugged(host: World) -> None:
    vm = await host.machine(disks=1, cards=0)
    await host.call("VM.start", vm, False, False)
    vbd = host.get("VM", vm, "VBDs")[0]
    await host.call("VBD.set_unpluggable", vbd, False)
    assert "unplug" not in host.get("VBD", vbd, "allowed_operations")
    assert await host.fails("VBD.unplug", vbd) == ("VBD_NOT_UNPLUGGABLE", vbd)


@pytest.mark.parametrize("running", [False, True])
async def test_discs_go_in_and_out(host: World, running: bool) -> None:
    vm = await host.machine(disks=0, cards=0)
    disc = await cd_image(host)
    vbd = await host.call("VBD.create", {**CD, "VM": vm, "VDI": NULL_REF, "empty": True, "userdevice": "3"})
    if running:
        await host.call("VM.start", vm, False, False)
    assert await host.fails("VBD.eject", vbd) == ("VBD_IS_EMPTY", vbd)
    await host.call("VBD.insert", vbd, disc)
    assert (host.get("VBD", vbd, "VDI"), host.get("VBD", vbd, "empty")) == (disc, False)
    assert await host.fails("VBD.insert", vbd, disc) == ("VBD_NOT_EMPTY", vbd)
    if running:
        domain = host.hypervisor._domains[host.get("VM", vm, "domid")]
        source = domain.disks[3].spec.source
        assert source is not None
        assert source.path.suffix == ".iso"
        assert (await host.fails("VBD.unplug", vbd))[0] == "OPERATION_NOT_ALLOWED"
    await host.call("VBD.eject", vbd)
    assert (host.get("VBD", vbd, "VDI"), host.get("VBD", vbd, "empty")) == (NULL_REF, True)
    if running:
        assert domain.disks[3].spec.source is None


async def test_only_discs_go_into_cd_drives(host: World) -> None:
    vm = await host.machine(disks=1, cards=0)
    hard = host.get("VM", vm, "VBDs")[0]
    vdi = await disk(host)
    vbd = await host.call("VBD.create", {**CD, "VM": vm, "VDI": NULL_REF, "empty": True, "userdevice": "3"})
    assert await host.fails("VBD.insert", vbd, vdi) == ("VDI_IS_NOT_ISO", vdi, "user")
    assert await host.fails("VBD.insert", hard, vdi) == ("VBD_NOT_REMOVABLE_MEDIA", hard)
    assert await host.fails("VBD.eject", hard) == ("VBD_NOT_REMOVABLE_MEDIA", hard)


async def test_several_machines_read_one_disc(host: World) -> None:
    disc = await cd_image(host)
    for _ in range(2):
        vm = await host.machine(disks=0, cards=0)
        await host.call("VBD.create", {**CD, "VM": vm, "VDI": disc, "userdevice": "3"})
        await host.call("VM.start", vm, False, False)
    assert len(host.domids()) == 2


async def test_mode_and_position_change_while_the_machine_is_off(host: World) -> None:
    vm = await host.machine(disks=2, cards=0)
    first, second = host.get("VM", vm, "VBDs")
    await host.call("VBD.set_mode", first, "RO")
    assert host.get("VBD", first, "mode") == "RO"
    assert await host.fails("VBD.set_userdevice", first, "1") == ("DEVICE_ALREADY_EXISTS", "1")
    await host.call("VBD.set_userdevice", first, "hdd")
    assert host.get("VBD", first, "userdevice") == "3"
    assert await host.fails("VBD.set_type", first, "CD") == (
        "VDI_IS_NOT_ISO", host.get("VBD", first, "VDI"), "user",
    )  # fmt: skip
    await host.call("VM.start", vm, False, False)
    assert await host.fails("VBD.set_mode", second, "RO") == ("VM_BAD_POWER_STATE", vm, "halted", "running")
    assert (await host.fails("VBD.set_userdevice", second, "7"))[0] == "OPERATION_NOT_ALLOWED"


async def test_saved_memory_is_nobodys_disk(host: World) -> None:
    """Who can write to it decides what the hypervisor reads when the machine is resumed."""
    asleep = await host.machine(disks=0, cards=0)
    await host.call("VM.start", asleep, False, False)
    await host.call("VM.suspend", asleep)
    image = host.get("VM", asleep, "suspend_VDI")
    vm = await host.machine(disks=0, cards=0)
    for mode in ("RW", "RO"):
        args = {**DRIVE, "VM": vm, "VDI": image, "userdevice": "0", "mode": mode}
        assert await host.fails("VBD.create", args) == ("VDI_INCOMPATIBLE_TYPE", image, "suspend")


async def test_read_only_disks_are_not_written(host: World) -> None:
    vm = await host.machine(disks=1, cards=0)
    vbd = host.get("VM", vm, "VBDs")[0]
    vdi = host.get("VBD", vbd, "VDI")
    await host.call("VDI.set_read_only", vdi, True)
    assert await host.fails("VBD.assert_attachable", vbd) == ("VDI_READONLY", vdi)
    await host.call("VBD.set_mode", vbd, "RO")
    await host.call("VBD.assert_attachable", vbd)
    assert await host.fails("VBD.set_mode", vbd, "RW") == ("VDI_READONLY", vdi)


async def test_plugging_waits_for_an_end_of_work_on_the_disk(host: World) -> None:
    vm = await host.machine(disks=0, cards=0)
    await host.call("VM.start", vm, False, False)
    vdi = await disk(host)
    vbd = await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "0"})
    pbd = host.get("SR", default_sr(host), "PBDs")[0]
    host.change("PBD", pbd, device_config={**host.get("PBD", pbd, "device_config"), "sim:delay-copy-disk": "5"})
    copying = host.begin("VDI.copy", vdi, default_sr(host))
    await host.settle()
    plugging = host.begin("VBD.plug", vbd)
    await host.settle()
    assert not plugging.done()
    await host.over(copying, 6)
    await host.over(plugging, 40)
    assert host.get("VBD", vbd, "currently_attached") is True
