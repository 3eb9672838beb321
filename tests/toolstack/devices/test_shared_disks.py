"""One disk and many drives: who may have it, and what looking at it costs."""

from __future__ import annotations

import asyncio
import time

from domzero.idl.types import Ref
from domzero.toolstack.storage import vbd as drives
from tests.toolstack.devices.test_vbd import CD, cd_image
from tests.toolstack.devices.test_vdi import disk
from tests.toolstack.vm.world import DRIVE, World

SLOW_PLUG = {"sim:delay-plug-disk": "5"}


async def running_with_empty_slot(host: World, vdi: Ref, **config: str) -> tuple[Ref, Ref]:
    """A running machine and a drive of it, not plugged, with the disk."""
    vm = await host.machine(disks=0, cards=0, other_config={"mac_seed": "s", **config})
    await host.call("VM.start", vm, False, False)
    return vm, await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "0"})


async def test_a_disk_is_plugged_into_one_machine_only(host: World) -> None:
    vdi = await disk(host)
    _, first = await running_with_empty_slot(host, vdi, **SLOW_PLUG)
    _, second = await running_with_empty_slot(host, vdi)
    plugging = host.begin("VBD.plug", first)
    await host.settle()
    refused = asyncio.ensure_future(host.fails("VBD.plug", second))
    await host.over(plugging, 6)
    assert await host.over(refused, 40) == ("VDI_IN_USE", vdi, "plug")
    assert [host.get("VBD", vbd, "currently_attached") for vbd in (first, second)] == [True, False]


async def test_a_plug_that_waited_for_a_failed_one_succeeds(host: World) -> None:
    vdi = await disk(host)
    _, first = await running_with_empty_slot(host, vdi, **SLOW_PLUG, **{"sim:fail-plug-disk": "no"})
    _, second = await running_with_empty_slot(host, vdi)
    failing = asyncio.ensure_future(host.fails("VBD.plug", first))
    await host.settle()
    plugging = host.begin("VBD.plug", second)
    assert (await host.over(failing, 6))[0] == "INTERNAL_ERROR"
    await host.over(plugging, 3)
    assert [host.get("VBD", vbd, "currently_attached") for vbd in (first, second)] == [False, True]


async def test_no_machine_starts_with_a_disk_that_another_is_getting(host: World) -> None:
    vdi = await disk(host)
    _, first = await running_with_empty_slot(host, vdi, **SLOW_PLUG)
    other = await host.machine(disks=0, cards=0)
    await host.call("VBD.create", {**DRIVE, "VM": other, "VDI": vdi, "userdevice": "0"})
    plugging = host.begin("VBD.plug", first)
    await host.settle()
    assert (await host.fails("VM.start", other, False, False))[:3] == ("OTHER_OPERATION_IN_PROGRESS", "VBD", first)
    await host.over(plugging, 6)
    assert host.power_state(other) == "Halted"


async def test_a_disc_in_thousands_of_drives_costs_little(host: World) -> None:
    """As the disc with the guest's tools is, in a large pool."""
    disc = await cd_image(host)
    vm = await host.machine(disks=0, cards=0)
    own = await host.call("VBD.create", {**CD, "VM": vm, "VDI": disc, "userdevice": "3"})
    with host.stack.database.transaction() as transaction:
        for number in range(2000):
            fields = {**CD, "VM": vm, "VDI": disc, "userdevice": str(number), "currently_attached": number % 2 == 0}
            transaction.create("VBD", fields)
    began = time.process_time()
    drives.refresh(host.stack, own)
    assert time.process_time() - began < 0.1
