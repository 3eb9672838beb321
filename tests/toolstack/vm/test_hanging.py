"""Machines whose hypervisor does not answer, as when storage hangs: the power can be cut all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import DomainNotFoundError
from domzero.host.hypervisor.sim.driver import SimHypervisor
from domzero.host.hypervisor.spec import DiskSpec
from tests.toolstack.vm.world import DRIVE, World, world


class HangingHypervisor(SimHypervisor):
    """Plugs no disk before the domain is destroyed."""

    destroyed: asyncio.Event

    async def plug_disk(self, domid: int, disk: DiskSpec) -> None:
        self.destroyed = asyncio.Event()
        await self.destroyed.wait()
        raise DomainNotFoundError(f"there is no domain {domid}")

    async def destroy(self, domid: int) -> None:
        await super().destroy(domid)
        self.destroyed.set()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, hypervisors=HangingHypervisor) as running:
        yield running


async def test_the_power_is_cut_whatever_hangs(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    await host.call("VM.start", vm, False, False)
    (vbd,) = host.get("VM", vm, "VBDs")
    other = await host.machine(disks=1, cards=0)
    vdi = host.get("VBD", host.get("VM", other, "VBDs")[0], "VDI")
    drive = await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": "2"})
    plugging = asyncio.ensure_future(host.fails("VBD.plug", drive))
    await host.settle()
    await host.over(host.call("VM.hard_shutdown", vm), 10)
    assert (await plugging)[0] == "VM_BAD_POWER_STATE"
    assert (host.power_state(vm), host.domids(), host.cards()) == ("Halted", set(), set())
    assert not host.get("VBD", vbd, "currently_attached")
    await host.call("VM.start", vm, False, False)
