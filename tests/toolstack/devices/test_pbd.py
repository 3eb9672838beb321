"""Repositories are let go of when nobody needs them."""

from __future__ import annotations

import dataclasses

import pytest

from domzero.host.storage.protocol import DriverInfo, Repository
from domzero.host.storage.sim import SimStorage
from domzero.idl.types import Ref
from domzero.toolstack.storage import pbd as pbds
from domzero.toolstack.storage.pbd import detach_all
from domzero.toolstack.storage.repositories import repository_of
from tests.toolstack.devices.test_vdi import default_sr, disk, disturb
from tests.toolstack.vm.world import DISK, DRIVE, World


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


async def test_who_sleeps_does_not_keep_a_repository(host: World) -> None:
    """It is there again before the machine goes on, which says what it waits for."""
    home = default_sr(host)
    away = await host.call("SR.create", host.stack.host, {"location": "/sim/o"}, "0", "o", "", "file", "", False, {})
    vm = await host.machine(disks=0, cards=0)
    vdi = await host.call("VDI.create", {**DISK, "SR": away})
    await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "0"})
    await host.call("VM.start", vm, False, False)
    (pbd,) = host.get("SR", away, "PBDs")
    assert await host.fails("PBD.unplug", pbd) == ("VDI_IN_USE", vdi, "PBD.unplug")
    checkpoint = await host.call("VM.checkpoint", vm, "as it was")
    await host.call("VM.suspend", vm)
    assert host.get("VDI", host.get("VM", vm, "suspend_VDI"), "SR") == home
    await host.call("PBD.unplug", pbd)
    assert host.get("VBD", host.get("VM", vm, "VBDs")[0], "currently_attached") is True
    assert await host.fails("VM.resume", vm, False, False) == ("VM_REQUIRES_SR", vm, away)
    assert host.power_state(vm) == "Suspended"
    await host.call("PBD.plug", pbd)
    await host.call("VM.resume", vm, False, False)
    await host.call("VM.revert", checkpoint)
    assert host.power_state(vm) == "Suspended"


class Remote(SimStorage):
    """Storage whose letting go takes the disks from machines that run, as a server's that is logged out of does."""

    detached: list[str]

    def info(self) -> DriverInfo:
        return dataclasses.replace(super().info(), detaches_under_machines=False)

    async def detach(self, repository: Repository) -> None:
        self.detached.append(repository.uuid)
        await super().detach(repository)


async def test_the_end_of_the_daemon_takes_no_disk_from_a_machine(host: World) -> None:
    sr = default_sr(host)
    remote = Remote(host.clock, host.stack.settings.state_dir / "storage")
    remote.detached = []
    await remote.attach(repository_of(host.stack, sr, pbd_of(host, sr)))
    host.stack.storage = {**host.stack.storage, "file": remote}
    other = await host.call("SR.create", host.stack.host, {"location": "/x"}, "0", "o", "", "file", "", False, {})
    vm = await host.machine(disks=1, cards=0)
    await host.call("VM.start", vm, False, False)
    await detach_all(host.stack)
    assert remote.detached == [host.get("SR", other, "uuid")]
    await host.call("VM.hard_shutdown", vm)
    await detach_all(host.stack)
    assert host.get("SR", sr, "uuid") in remote.detached


async def test_a_medium_that_hangs_does_not_hold_up_the_end(host: World, monkeypatch: pytest.MonkeyPatch) -> None:
    disturb(host, delay_detach="1000")
    monkeypatch.setattr(pbds, "DETACHING", 0.05)
    await detach_all(host.stack)
    assert host.get("PBD", pbd_of(host, default_sr(host)), "currently_attached"), "the next start plugs it again"
