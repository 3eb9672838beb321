"""Disks that grow under a running guest, parts of a larger file among them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import HypervisorError, RunState
from domzero.host.hypervisor.qemu import resizing, slots
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskSource, DiskSpec, Extent
from domzero.host.process import run
from tests.host.qemu.conftest import MIB, USERS, Guest, Machine

pytestmark = pytest.mark.qemu

START, LENGTH = 4 * MIB, 8 * MIB


def volume_group(machine: Machine) -> Path:
    """A file of 32 MiB of which a disk gets a part; every byte outside says so."""
    path = machine.directory / "volumes"
    path.write_bytes(b"\xee" * (32 * MIB))
    return path


async def plug(machine: Machine, guest: Guest, place: Path | Extent, format: DiskFormat = DiskFormat.RAW) -> None:
    await machine.hypervisor.plug_disk(guest.domid, DiskSpec(1, DiskKind.DISK, DiskSource(place, format)))
    await guest.console.eventually("test -b /dev/vdb")


async def guest_sees(guest: Guest, size: int) -> None:
    await guest.console.eventually(f"test $(cat /sys/block/vdb/size) = {size // 512}")


@pytest.mark.parametrize("format", [DiskFormat.QCOW2, DiskFormat.RAW])
async def test_files(machine: Machine, guest: Guest, format: DiskFormat) -> None:
    disk = machine.image("growing", "8M", format=format)
    await plug(machine, guest, disk.path, format)
    if format is DiskFormat.RAW:
        await asyncio.to_thread(os.truncate, disk.path, 24 * MIB)
    await machine.hypervisor.resize_disk(guest.domid, 1, 24 * MIB)
    await guest_sees(guest, 24 * MIB)
    await guest.console.run("echo end | dd of=/dev/vdb bs=1M seek=23 conv=fsync,notrunc 2>/dev/null")
    await machine.hypervisor.resize_disk(guest.domid, 1, 24 * MIB)
    for size in (16 * MIB, 24 * MIB + 1, 0, -512):
        with pytest.raises(HypervisorError, match="cannot have"):
            await machine.hypervisor.resize_disk(guest.domid, 1, size)
    with pytest.raises(HypervisorError, match="no disk"):
        await machine.hypervisor.resize_disk(guest.domid, 9, 24 * MIB)
    with pytest.raises(HypervisorError, match="empty"):
        await machine.hypervisor.resize_disk(guest.domid, 3, 24 * MIB)


async def test_extents(machine: Machine, guest: Guest) -> None:
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    volumes = volume_group(machine)
    await plug(machine, guest, Extent(volumes, START, LENGTH))
    await hypervisor.plug_disk(
        domid, DiskSpec(2, DiskKind.DISK, DiskSource(Extent(volumes, 0, START), DiskFormat.RAW))
    )  # another part of the same file
    await guest_sees(guest, LENGTH)
    await console.run(f"head -c {LENGTH} /dev/zero | tr '\\000' A > /dev/vdb; sync")
    machine.events.all.clear()
    await hypervisor.resize_disk(domid, 1, 2 * LENGTH)
    await guest_sees(guest, 2 * LENGTH)
    await console.run("echo grown | dd of=/dev/vdb bs=1M seek=15 conv=fsync,notrunc 2>/dev/null")
    await console.run("echo 3 > /proc/sys/vm/drop_caches; test $(head -c 1 /dev/vdb) = A")
    assert (await hypervisor.status(domid)).state is RunState.RUNNING
    assert machine.events.all == []
    with pytest.raises(HypervisorError, match="medium"):
        await hypervisor.resize_disk(domid, 1, 64 * MIB)
    with pytest.raises(HypervisorError, match="cannot have"):
        await hypervisor.resize_disk(domid, 1, LENGTH)
    await hypervisor.pause(domid)
    await hypervisor.resize_disk(domid, 1, 20 * MIB)
    assert (await hypervisor.status(domid)).state is RunState.PAUSED
    await hypervisor.unpause(domid)
    await guest_sees(guest, 20 * MIB)
    await hypervisor.unplug_disk(domid, 1)
    content = volumes.read_bytes()
    assert len(content) == 32 * MIB
    assert content[:START] == b"\xee" * START
    assert content[START : START + LENGTH] == b"A" * LENGTH
    assert content[START + 15 * MIB :].startswith(b"grown\n")
    assert content[START + 2 * LENGTH :] == b"\xee" * (28 * MIB - 2 * LENGTH)


async def test_an_image_in_an_extent(machine: Machine, guest: Guest) -> None:
    volumes = volume_group(machine)
    image = machine.image("image", "16M")
    await run(["dd", f"if={image.path}", f"of={volumes}", "bs=1M", "seek=4", "conv=notrunc"])
    source = DiskSource(Extent(volumes, START, 12 * MIB), DiskFormat.QCOW2)
    with pytest.raises(HypervisorError, match="beforehand"):
        await machine.hypervisor.plug_disk(guest.domid, DiskSpec(1, DiskKind.DISK, source))
    await machine.hypervisor.plug_disk(guest.domid, DiskSpec(1, DiskKind.DISK, replace(source, backing=())))
    await guest.console.eventually("test -b /dev/vdb")
    await guest_sees(guest, 16 * MIB)
    await guest.console.run("echo inside | dd of=/dev/vdb conv=fsync,notrunc 2>/dev/null")
    with pytest.raises(HypervisorError, match="part of a device"):
        await machine.hypervisor.resize_disk(guest.domid, 1, 24 * MIB)
    await machine.hypervisor.unplug_disk(guest.domid, 1)
    assert volumes.read_bytes()[START + 12 * MIB :] == b"\xee" * (16 * MIB)


@pytest.mark.parametrize("step", ["blockdev-add", "blockdev-reopen", "block_resize", "cont"])
async def test_a_daemon_that_dies_while_a_part_grows(
    machine: Machine, guest: Guest, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The next daemon finds a guest that goes on, on its own disk; whether the disk has grown may be either."""
    volumes = volume_group(machine)
    await plug(machine, guest, Extent(volumes, START, LENGTH))
    await guest.console.run("echo mine | dd of=/dev/vdb conv=fsync,notrunc 2>/dev/null")
    domain = machine.hypervisor._domains[guest.domid]
    client = domain.monitor._client
    obey = client.execute
    commands: list[str] = []

    async def die(command: str, arguments: object = None, oob: bool = False) -> object:
        commands.append(command)
        answer = await obey(command, arguments, oob)  # type: ignore[arg-type]  # the library's own type
        if command == step and (step != "blockdev-add" or commands.count(step) == 2):
            await machine.hypervisor.close()
        return answer

    monkeypatch.setattr(client, "execute", die)
    with contextlib.suppress(HypervisorError):  # the last step may be the one after which it dies
        await machine.hypervisor.resize_disk(guest.domid, 1, 2 * LENGTH)
    assert step in commands
    machine.hypervisor = machine.driver()
    found = await machine.hypervisor.open(machine.events)
    assert [status.state for status in found] == [RunState.RUNNING]
    domain = machine.hypervisor._domains[guest.domid]
    assert not domain.handle.held
    assert (await domain.monitor.execute("query-status"))["status"] == "running"
    parts = [part for node in (await slots.holdings(domain)).nodes if (part := resizing.part_of(node))]
    assert [(part.offset, part.size in (LENGTH, 2 * LENGTH)) for part in parts] == [(START, True)]
    await guest.console.run("echo 3 > /proc/sys/vm/drop_caches; test $(head -c 4 /dev/vdb) = mine")
    await machine.hypervisor.resize_disk(guest.domid, 1, 2 * LENGTH)
    await guest_sees(guest, 2 * LENGTH)


@pytest.mark.root
@pytest.mark.skipif(USERS is None, reason="a loop device needs root")
async def test_devices(machine: Machine, guest: Guest) -> None:
    image = machine.image("backing", "4M", format=DiskFormat.RAW)
    device = Path((await run(["losetup", "--find", "--show", image.path])).stdout.decode().strip())
    try:
        await plug(machine, guest, device)
        with pytest.raises(HypervisorError, match="larger while it is in use"):
            await machine.hypervisor.resize_disk(guest.domid, 1, 16 * MIB)
        await asyncio.to_thread(os.truncate, image.path, 16 * MIB)
        await run(["losetup", "--set-capacity", device])
        await machine.hypervisor.resize_disk(guest.domid, 1, 16 * MIB)
        await guest_sees(guest, 16 * MIB)
        await machine.hypervisor.unplug_disk(guest.domid, 1)
        await plug(machine, guest, Extent(device, MIB, MIB))
        await machine.hypervisor.resize_disk(guest.domid, 1, 2 * MIB)
        await guest_sees(guest, 2 * MIB)
        await machine.hypervisor.unplug_disk(guest.domid, 1)
    finally:
        await run(["losetup", "--detach", device])
