"""Repositories are let go of when nobody needs them."""

from __future__ import annotations

from domzero.idl.types import Ref
from tests.toolstack.devices.test_vdi import default_sr, disk, disturb
from tests.toolstack.vm.world import DISK, World


def pbd_of(host: World, sr: Ref) -> Ref:
    return str(host.get("SR", sr, "PBDs")[0])


async def test_unplugging_waits_for_a_disk_in_the_making(host: World) -> None:
    sr = default_sr(host)
    disturb(host, delay_create_disk="5")
    making = host.begin("VDI.create", {**DISK, "SR": sr})
    await host.settle()
    unplugging = host.begin("PBD.unplug", pbd_of(host, sr))
    await host.settle()
    assert host.get("PBD", pbd_of(host, sr), "currently_attached")
    vdi = await host.over(making, 6)
    await host.over(unplugging, 3)
    assert not host.get("PBD", pbd_of(host, sr), "currently_attached")
    await host.call("PBD.plug", pbd_of(host, sr))
    assert host.get("SR", sr, "VDIs") == (vdi,)
    assert "scan" in host.get("SR", sr, "allowed_operations")


async def test_a_disk_that_is_read_keeps_its_repository(host: World) -> None:
    sr = default_sr(host)
    vdi = await disk(host)
    slow = {"location": "/sim/other", "sim:delay-copy-disk": "5"}
    other = await host.call("SR.create", host.stack.host, slow, "0", "o", "", "file", "", False, {})
    copying = host.begin("VDI.copy", vdi, other)
    await host.settle()
    refused = await host.fails("PBD.unplug", pbd_of(host, sr))
    assert refused[:4] == ("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi, "copy")
    await host.over(copying, 6)
