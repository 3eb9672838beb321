"""A daemon that dies after any command it gave: the next one finds the work done or undone, and nothing left over."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import slots
from domzero.host.hypervisor.qemu.driver import QemuHypervisor
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskLimits, DiskSpec, LayerPull
from tests.host.qemu.conftest import Guest, Machine
from tests.host.qemu.layers import SIZE, chain, guests_digest, identity, open_files

pytestmark = [pytest.mark.qemu, pytest.mark.slow]

Call = Callable[[QemuHypervisor], Awaitable[None]]


async def dies_after(machine: Machine, guest: Guest, step: int, call: Call) -> bool:
    """Make a call whose daemon is gone after that many commands, and bring the next daemon; False: there were fewer."""
    client = machine.hypervisor._domains[guest.domid].monitor._client
    obey, given = client.execute, itertools.count(1)
    gone = asyncio.Event()

    async def execute(command: str, *arguments: Any) -> object:
        answer = await obey(command, *arguments)
        if next(given) == step:
            await machine.hypervisor.close()
            gone.set()
        return answer

    client.execute = execute  # type: ignore[method-assign,assignment]  # counts the commands
    try:
        await call(machine.hypervisor)
    except HypervisorError:
        failed = True
    else:
        failed = False
    if next(given) <= step:
        client.execute = obey  # type: ignore[method-assign]  # as it was
        assert not failed
        return False
    # Commands are also given side by side: the call can fail by one while the daemon still goes by another.
    async with asyncio.timeout(20):
        await gone.wait()
    machine.hypervisor = machine.driver()
    found = await machine.hypervisor.open(machine.events)
    assert [status.domid for status in found] == [guest.domid]
    return True


async def is_tidy(machine: Machine, guest: Guest) -> None:
    """QEMU holds nothing that nothing uses."""
    domain = machine.hypervisor._domains[guest.domid]
    before = await slots.holdings(domain)
    assert before.unused(None) == []
    await slots.let_go(domain, None)
    assert (await slots.holdings(domain)).names == before.names
    assert await domain.monitor.execute("query-block-jobs") == []
    await guest.console.count()


async def test_plugging_and_unplugging(machine: Machine, guest: Guest) -> None:
    disk = DiskSpec(1, DiskKind.DISK, machine.image("disk1", "8M"), limits=DiskLimits(bytes_per_second=1 << 20))
    image = machine.directory / "images" / "disk1"
    for step in itertools.count(1):
        died = await dies_after(machine, guest, step, lambda hypervisor: hypervisor.plug_disk(guest.domid, disk))
        await is_tidy(machine, guest)
        if 1 in (await machine.hypervisor.statistics(guest.domid)).disks:
            await machine.hypervisor.unplug_disk(guest.domid, 1)
        assert identity(image) not in open_files(machine.hypervisor._domains[guest.domid].pid)
        if not died:
            break
    for step in itertools.count(1):
        await machine.hypervisor.plug_disk(guest.domid, disk)
        await guest.console.eventually("test -b /dev/vdb")
        died = await dies_after(machine, guest, step, lambda hypervisor: hypervisor.unplug_disk(guest.domid, 1))
        await guest.console.eventually("true")
        await is_tidy(machine, guest)
        if 1 in (await machine.hypervisor.statistics(guest.domid)).disks:
            await machine.hypervisor.unplug_disk(guest.domid, 1)
        assert identity(image) not in open_files(machine.hypervisor._domains[guest.domid].pid)
        if not died:
            break


async def test_media(machine: Machine, guest: Guest) -> None:
    discs = [machine.image(f"disc{number}", "1M", format=DiskFormat.RAW) for number in range(2)]

    async def change(hypervisor: QemuHypervisor) -> None:
        await hypervisor.change_medium(guest.domid, 3, disc)

    for step in itertools.count(1):
        disc = discs[step % 2]
        died = await dies_after(machine, guest, step, change)
        await is_tidy(machine, guest)
        await machine.hypervisor.change_medium(guest.domid, 3, disc)
        if not died:
            break


async def test_snapshots_and_pulls(machine: Machine, guest: Guest) -> None:
    layers = await chain(machine)
    await machine.hypervisor.plug_disk(guest.domid, DiskSpec(1, DiskKind.DISK, layers.source()))
    await guest.console.eventually("test -b /dev/vdb")
    before = await guests_digest(guest)
    upper = layers.paths["top"]

    async def snapshot(hypervisor: QemuHypervisor) -> None:
        await hypervisor.switch_disk(guest.domid, 1, overlay)

    async def pull(hypervisor: QemuHypervisor) -> None:
        asked = LayerPull(layers.paths["b2"], layers.paths["base"], "base")
        await hypervisor.pull_layer(guest.domid, 1, asked, lambda _: None)

    for step in itertools.count(1):
        overlay = machine.image(f"s{step}", "-b", upper.name, "-F", "qcow2", str(SIZE))
        died = await dies_after(machine, guest, step, snapshot)
        await is_tidy(machine, guest)
        if identity(overlay.path) in open_files(machine.hypervisor._domains[guest.domid].pid):
            upper = overlay.path
        if not died:
            break
    assert await guests_digest(guest) == before
    for step in itertools.count(1):
        died = await dies_after(machine, guest, step, pull)
        await is_tidy(machine, guest)
        if not died:
            break
        assert await layers.backing("b2") in (["b2", "b1", "base"], ["b2", "base"])
    assert await layers.backing("b2") == ["b2", "base"]
    assert await guests_digest(guest) == before
    await machine.hypervisor.unplug_disk(guest.domid, 1)
