"""Snapshots of a disk that a machine is writing."""

from __future__ import annotations

import asyncio

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from tests.host.storage.disks import MIB, Shelf, holds, uuid, write


class Machine:
    """Writes to a disk as QEMU does: it has the top layer open, and moves to another when told."""

    def __init__(self, source: DiskSource) -> None:
        self.path = source.path
        self.told: list[DiskSource] = []

    async def switch(self, source: DiskSource) -> None:
        self.told.append(source)
        self.path = source.path
        write(source, 50, MIB)


async def test_a_running_disk_goes_on_in_the_new_layer(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), 4 * MIB)
    machine = Machine(await shelf.source(1))
    write(DiskSource(machine.path, DiskFormat.QCOW2), 1)
    await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(2), machine.switch)
    assert len(machine.told) == 1
    assert machine.told[0].format is DiskFormat.QCOW2
    assert not machine.path.exists()
    assert holds(await shelf.source(1), 1)
    assert holds(await shelf.source(1), 50, MIB)
    assert holds(await shelf.source(2), 1)
    assert holds(await shelf.source(2), 0, MIB)


async def test_a_blank_running_disk_is_switched_too(shelf: Shelf) -> None:
    """Its machine may have written what is not in the file yet."""
    await shelf.driver.create_disk(shelf.repository, uuid(1), 4 * MIB)
    machine = Machine(await shelf.source(1))
    await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(2), machine.switch)
    assert len(machine.told) == 1
    assert holds(await shelf.source(2), 0, MIB)


async def test_a_failed_switch_changes_nothing(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), 4 * MIB)
    write(await shelf.source(1), 1)
    before = shelf.files()

    async def fail(source: DiskSource) -> None:
        assert source.path.exists()
        raise RuntimeError("the machine would not")

    with pytest.raises(RuntimeError):
        await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(2), fail)
    assert shelf.files() == before
    assert (shelf.directory / before[0]).stat().st_nlink == 1
    assert holds(await shelf.source(1), 1)


async def test_cancelling_while_the_machine_switches_waits_for_it(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), 4 * MIB)
    write(await shelf.source(1), 1)
    switching, let_go = asyncio.Event(), asyncio.Event()

    async def slow(source: DiskSource) -> None:
        switching.set()
        await let_go.wait()
        write(source, 50, MIB)

    call = asyncio.ensure_future(shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(2), slow))
    await switching.wait()
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    assert await shelf.numbers() == {1}
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await shelf.numbers() == {1}
    assert holds(await shelf.source(1), 1)
    assert holds(await shelf.source(1), 50, MIB)
    await shelf.driver.destroy_disk(shelf.repository, uuid(1))
    assert shelf.files() == []
