"""Disks that grow, idle or before the eyes of a running machine."""

from __future__ import annotations

import asyncio

import pytest

from domzero.idl.types import Ref
from tests.toolstack.devices.test_vdi import default_sr, disk, disturb, running_with_disk
from tests.toolstack.vm.test_leftovers import outcome_of
from tests.toolstack.vm.world import DRIVE, MIB, World


def size_in(host: World, vm: Ref, slot: int = 0) -> int:
    """How large the guest sees the disk, once it has been told."""
    return host.hypervisor._domains[host.get("VM", vm, "domid")].disks[slot].size


async def test_the_guest_sees_it(host: World) -> None:
    vm, _, vdi = await running_with_disk(host)
    assert "resize_online" in host.get("VDI", vdi, "allowed_operations")
    await host.call("VDI.resize_online", vdi, str(64 * MIB))
    assert (host.get("VDI", vdi, "virtual_size"), size_in(host, vm)) == (64 * MIB, 64 * MIB)
    await host.call("VM.pause", vm)
    await host.call("VDI.resize_online", vdi, str(65 * MIB))
    assert size_in(host, vm) == 65 * MIB


async def test_an_idle_disk_grows_too(host: World) -> None:
    vdi = await disk(host)
    await host.call("VDI.resize_online", vdi, str(64 * MIB))
    assert host.get("VDI", vdi, "virtual_size") == 64 * MIB


async def test_offline_means_offline(host: World) -> None:
    _, _, vdi = await running_with_disk(host)
    assert await host.fails("VDI.resize", vdi, str(64 * MIB)) == ("VDI_IN_USE", vdi, "resize")
    present = host.get("VDI", vdi, "virtual_size")
    assert await host.fails("VDI.resize_online", vdi, "512") == ("VDI_TOO_SMALL", vdi, str(present))


async def test_a_guest_that_cannot_be_told(host: World) -> None:
    vm = await host.machine(disks=1, cards=0, other_config={"sim:fail-resize-disk": "not now"})
    await host.call("VM.start", vm, False, False)
    vdi = host.get("VBD", host.get("VM", vm, "VBDs")[0], "VDI")
    before = host.get("VDI", vdi, "virtual_size")
    assert await host.fails("VDI.resize_online", vdi, str(64 * MIB)) == ("INTERNAL_ERROR", "not now")
    assert host.get("VDI", vdi, "virtual_size") == before


async def test_who_sleeps_or_shares_or_only_reads(host: World) -> None:
    vm, _, vdi = await running_with_disk(host)
    await host.call("VM.suspend", vm)
    assert await host.fails("VDI.resize_online", vdi, str(64 * MIB)) == ("VDI_IN_USE", vdi, "resize_online")
    assert "resize_online" not in host.get("VDI", vdi, "allowed_operations")
    shared = await disk(host, sharable=True)
    for _ in range(2):
        other = await host.machine(disks=0, cards=0)
        await host.call("VBD.create", {**DRIVE, "VM": other, "VDI": shared, "userdevice": "0"})
        await host.call("VM.start", other, False, False)
    assert await host.fails("VDI.resize_online", shared, str(64 * MIB)) == ("VDI_IN_USE", shared, "resize_online")
    assert "resize_online" not in host.get("VDI", shared, "allowed_operations")
    read = await disk(host)
    reader = await host.machine(disks=0, cards=0)
    await host.call("VBD.create", {**DRIVE, "VM": reader, "VDI": read, "userdevice": "0", "mode": "RO"})
    await host.call("VM.start", reader, False, False)
    assert await host.fails("VDI.resize_online", read, str(64 * MIB)) == ("VDI_IN_USE", read, "resize_online")
    assert "resize_online" not in host.get("VDI", read, "allowed_operations")


@pytest.mark.parametrize("online", [False, True])
async def test_a_machine_that_comes_or_goes_meanwhile(host: World, online: bool) -> None:
    """Growing waits for the machine's turn, and looks at what has become of it."""
    vm = await host.machine(disks=1, cards=0, other_config={"sim:delay-start": "5", "sim:delay-destroy": "5"})
    vdi = host.get("VBD", host.get("VM", vm, "VBDs")[0], "VDI")
    starting = host.begin("VM.start", vm, False, False)
    await host.settle()
    if online:
        growing = host.begin("VDI.resize_online", vdi, str(64 * MIB))
        await host.over(starting, 6)
        await host.over(growing, 2)
        assert size_in(host, vm) == 64 * MIB
        return
    await host.over(starting, 6)
    ending = host.begin("VM.hard_shutdown", vm)
    await host.settle()
    growing = host.begin("VDI.resize_online", vdi, str(64 * MIB))
    await host.over(ending, 6)
    await host.over(growing, 2)
    assert host.get("VDI", vdi, "virtual_size") == 64 * MIB


async def test_a_full_medium(host: World) -> None:
    vdi = await disk(host)
    before = (host.row("VDI", vdi), host.files())
    disturb(host, physical_size=str(48 * MIB))
    for method in ("VDI.resize", "VDI.resize_online"):
        error = await host.fails(method, vdi, str(64 * MIB))
        assert error[0] == "SR_BACKEND_FAILURE_44"
    assert (host.row("VDI", vdi), host.files()) == before


async def test_a_medium_that_fills_up_in_mid_copy(host: World) -> None:
    """The task fails with the documented number; neither row nor file stays, and the source can be used at once."""
    vdi = await disk(host)
    where = {"location": "/sim", "sim:fail-copy-disk": "44 full", "sim:delay-copy-disk": "5"}
    small = await host.call("SR.create", host.stack.host, where, "0", "small", "", "file", "", False, {})
    files = host.files()
    task = await host.call("Async.VDI.copy", vdi, small, "OpaqueRef:NULL", "OpaqueRef:NULL")
    await host.settle()
    await host.clock.advance(6)
    await host.settle()
    record = host.row("task", task)
    assert (record["status"], record["error_info"]) == ("failure", ("SR_BACKEND_FAILURE_44", "", "full", ""))
    assert (host.get("SR", small, "VDIs"), host.files()) == ((), files)
    await host.call("VDI.destroy", vdi)


async def test_names_are_free_text_and_places_are_not(host: World) -> None:
    name = "../../etc/passwd\n<disk>"
    vdi = await disk(host, name_label=name, name_description=name)
    assert host.get("VDI", vdi, "name_label") == name
    await host.call("VDI.set_name_label", vdi, "a/b\nc")
    copy = await host.call("VDI.copy", vdi, default_sr(host), "OpaqueRef:NULL", "OpaqueRef:NULL")
    assert host.get("VDI", copy, "name_label") == "a/b\nc"
    vm = await host.machine(disks=0)
    for device in ("0/1", "1\n", " 1", "xvda\n", "", "xvdq", "16", "-1", "../0", "0x1", "\u0663"):
        fields = {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": device}
        assert await host.fails("VBD.create", fields) == ("INVALID_DEVICE", device)
    for location in ("../x", "a\nb", "/etc/passwd", "%2e%2e"):
        uuid = host.stack.database.new_uuid()
        params = [uuid, "n", "", default_sr(host), "user", False, False, {}, location, {}, {}]
        error = await host.fails("VDI.introduce", *params)
        assert error == ("VDI_LOCATION_MISSING", default_sr(host), location)


async def test_two_writers_are_refused_and_two_readers_are_not(host: World) -> None:
    vdi = await disk(host)
    machines = [await host.machine(disks=0, cards=0) for _ in range(3)]
    drives = [
        await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "0", "mode": mode})
        for vm, mode in zip(machines, ("RW", "RW", "RO"), strict=True)
    ]
    await host.call("VM.start", machines[0], False, False)
    for vm in machines[1:]:
        assert await host.fails("VM.start", vm, False, False) == ("VDI_IN_USE", vdi, "attach")
    await host.call("VM.hard_shutdown", machines[0])
    starts = [asyncio.ensure_future(outcome_of(host, "VM.start", vm, False, False)) for vm in machines[:2]]
    assert sorted([each is None for each in await asyncio.gather(*starts)]) == [False, True]
    attached = [host.get("VBD", vbd, "currently_attached") for vbd in drives]
    assert sum(attached) == 1
