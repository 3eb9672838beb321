"""A look at a medium takes time, in which disks come and go; what it saw is not taken for what is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from domzero.host.storage.protocol import NOTHING, DiskInfo, Repository, StorageError
from domzero.host.storage.sim import SimStorage
from domzero.idl.types import NULL_REF
from domzero.toolstack.storage.repositories import attached
from domzero.toolstack.storage.scanning import scan_automatically
from tests.toolstack.devices.test_vdi import default_sr, disk
from tests.toolstack.vm.world import DISK, World


class SlowStorage(SimStorage):
    """Says what it found, or made, only when it is let."""

    may_tell_found: asyncio.Event
    may_tell_made: asyncio.Event
    fails = False

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        found = await super().scan(repository)
        await self.may_tell_found.wait()
        return found

    async def create_disk(
        self, repository: Repository, uuid: str, virtual_size: int, sm_config: Mapping[str, str] = NOTHING
    ) -> DiskInfo:
        made = await super().create_disk(repository, uuid, virtual_size, sm_config)
        await self.may_tell_made.wait()
        if self.fails:
            await self.destroy_disk(repository, made.location)
            raise StorageError(1, "it cannot be done after all")
        return made


@pytest.fixture
async def slow(host: World) -> SlowStorage:
    """The default repository, looked at every half minute, on slow storage."""
    storage = SlowStorage(host.clock, host.stack.settings.state_dir / "storage")
    storage.may_tell_found, storage.may_tell_made = asyncio.Event(), asyncio.Event()
    _, repository = attached(host.stack, default_sr(host))
    await storage.attach(repository)
    host.stack.storage = {**host.stack.storage, "file": storage}
    await host.call("SR.add_to_other_config", default_sr(host), "auto-scan", "true")
    return storage


async def test_a_disk_destroyed_meanwhile_does_not_come_back(host: World, slow: SlowStorage) -> None:
    slow.may_tell_made.set()
    vdi = await disk(host)
    looking = asyncio.ensure_future(scan_automatically(host.stack))
    await host.settle()
    await host.call("VDI.destroy", vdi)
    slow.may_tell_found.set()
    await looking
    assert host.get("SR", default_sr(host), "VDIs") == ()


async def test_a_disk_in_the_making_is_left_to_its_maker(host: World, slow: SlowStorage) -> None:
    making = host.begin("VDI.create", {**DISK, "SR": default_sr(host)})
    await host.settle()
    slow.may_tell_found.set()
    await scan_automatically(host.stack)
    slow.may_tell_made.set()
    made = await making
    assert host.get("SR", default_sr(host), "VDIs") == (made,)
    assert len(host.files()) == 1


async def test_a_disk_that_failed_meanwhile_is_not_introduced(host: World, slow: SlowStorage) -> None:
    slow.fails = True
    making = asyncio.ensure_future(host.fails("VDI.create", {**DISK, "SR": default_sr(host)}))
    await host.settle()
    looking = asyncio.ensure_future(scan_automatically(host.stack))
    await host.settle()
    slow.may_tell_made.set()
    assert (await making)[0] == "SR_BACKEND_FAILURE_1"
    slow.may_tell_found.set()
    await looking
    assert (host.get("SR", default_sr(host), "VDIs"), host.files()) == ((), set())


def begin_looking(host: World, asked: bool) -> asyncio.Future[Any]:
    if asked:
        return host.begin("SR.scan", default_sr(host))
    return asyncio.ensure_future(scan_automatically(host.stack))


@pytest.mark.parametrize("asked", [False, True])
async def test_a_machine_is_suspended_meanwhile(host: World, slow: SlowStorage, asked: bool) -> None:
    slow.may_tell_made.set()
    vm = await host.machine(cards=0)
    await host.call("VM.start", vm, False, False)
    looking = begin_looking(host, asked)
    await host.settle()
    await host.call("VM.suspend", vm)
    slow.may_tell_found.set()
    await looking
    assert not host.get("VDI", host.get("VM", vm, "suspend_VDI"), "missing")
    slow.may_tell_found.clear()
    looking = begin_looking(host, asked)
    await host.settle()
    await host.call("VM.resume", vm, False, False)
    assert host.get("VM", vm, "suspend_VDI") == NULL_REF
    slow.may_tell_found.set()
    await looking
    assert len(host.get("SR", default_sr(host), "VDIs")) == 1


async def test_a_disk_whose_uuid_is_another_repositorys_is_left_out(host: World) -> None:
    """As in a directory that was copied as a whole."""
    vdi, other = await disk(host), await disk(host)
    uuid = host.get("VDI", vdi, "uuid")
    (library,) = set(host.stack.database.refs("SR")) - {default_sr(host)}
    host.change("VDI", vdi, SR=library)
    await host.call("SR.scan", default_sr(host))
    assert host.get("SR", default_sr(host), "VDIs") == (other,)
    assert host.stack.database.by_uuid("VDI", uuid) == vdi
