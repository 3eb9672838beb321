"""Repositories of logical volumes: a disk is the volume `LV-<uuid>` of the volume group `VG_XenStorage-<uuid>`, raw.

Each change of LVM's metadata is atomic, so that every operation is one change between harmless preparations:

* create, copy: make the volume, tagged as new; fill it; take the tag away. A tagged volume is no disk.
* grow: tag the volume with the size that is valid; make it larger; zero what came; take the tag away.
* destroy: remove the volume.

What was killed in between is undone by the next `attach` or `scan` (`lvm_names.leftovers`).

A new volume is zeroed before it becomes a disk, not when a disk is destroyed: then it does not matter what was on the
medium before the repository, nor what a crash, a `force` or another tool left in its free space, and no guest can ever
read what is not its own. Devices that can zero by themselves do it at once, on others it takes as long as writing.

Images of memory are refused (`DriverInfo.holds_images`): they grow as a hypervisor writes them, which no volume does,
and without device mapper there is no file to write to but the whole device.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from domzero.finish import finish, in_thread
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.files import formats
from domzero.host.storage.files.place import Step
from domzero.host.storage.lvm.changes import grow, making, tidy
from domzero.host.storage.lvm.devices import LocalDevices, take_unused
from domzero.host.storage.lvm.fill import fill, zero
from domzero.host.storage.lvm.group import LOCKS, AttachedGroup, let_go, take_lock
from domzero.host.storage.lvm.mapping import Access, DirectAccess, MappedAccess, has_device_mapper
from domzero.host.storage.lvm.medium import DeviceMedium
from domzero.host.storage.lvm.names import disk_name, disk_of, group_name, repository_of, valid_size
from domzero.host.storage.lvm.report import Group, Volume
from domzero.host.storage.lvm.tool import LvmTool
from domzero.host.storage.protocol import (
    NOTHING,
    DiskInfo,
    DriverInfo,
    ProbedRepository,
    Progress,
    Repository,
    RepositorySize,
    StorageError,
)
from domzero.host.storage.refusals import Refusals
from domzero.host.storage.sources import check_source
from domzero.host.storage.uuids import UUID_PATTERN
from domzero.host.storage.worker import Workers

log = logging.getLogger(__name__)

METADATA = "8m"
"""Space for LVM's metadata on each device, enough for some 9,000 volumes."""


class LvmStorage(Refusals):
    """Implements `StorageDriver` but for what raw volumes cannot do: clone, snapshot, and hold images of memory.

    `medium` brings the block devices; where hosts share it, `host` is the mark of this one. `mapped` says whether the
    kernel has device mapper, None to find out. `locks` is where lock files go, `step` is told of every change on the
    medium. Needs root.
    """

    refusal = "logical volumes neither share layers nor grow with a stream"

    def __init__(
        self,
        medium: DeviceMedium | None = None,
        *,
        host: str = "",
        mapped: bool | None = None,
        locks: Path = LOCKS,
        step: Step = lambda _: None,
    ) -> None:
        self._medium = medium or LocalDevices()
        self._host = host
        self._mapped = mapped
        self._locks = locks
        self._step = step
        self._groups: dict[str, AttachedGroup] = {}
        self._opening = asyncio.Lock()

    def info(self) -> DriverInfo:
        return self._medium.info()

    # Repositories

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:  # noqa: ARG002
        async with self._connected("the probed medium", device_config) as tool:
            groups, physical = await tool.groups(), await tool.physical()
        return [
            ProbedRepository(uuid, group.size, group.free, tuple(p.device for p in physical if p.group == group.name))
            for group in groups
            if (uuid := repository_of(group.name))
        ]

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - all of the devices is used
        name = group_name(_checked(repository.uuid))
        force = repository.device_config.get("force") == "true"
        async with self._connected(name, repository.device_config) as tool:
            blank = {Path(physical.device) for physical in await tool.physical() if not physical.group}
            await take_unused(tool.devices, blank, force=force)
            settings = ["--setautoactivation", "n", "--metadatasize", METADATA, "--yes"]
            await tool.call("vgcreate", *settings, name, *map(str, tool.devices))
        self._step("group made")

    async def attach(self, repository: Repository) -> None:
        async with self._opening:
            if repository.uuid not in self._groups:
                self._groups[repository.uuid] = await self._open(repository)
        await tidy(self._group(repository))

    async def detach(self, repository: Repository) -> None:
        async with self._opening:
            group = self._groups.get(repository.uuid)
            if group is None:
                return
            try:
                await group.access.close()
            except StorageError as error:
                if error.number == numbers.DISK_IN_USE:
                    raise
                log.warning("%s is let go of as it is: %s", group.name, error)
            await self._let_go(repository, group)

    async def destroy(self, repository: Repository) -> None:
        try:
            await self.attach(repository)
        except StorageError as error:
            if error.number == numbers.REPOSITORY_UNAVAILABLE and await self._release_blank(repository):
                return
            raise
        group = self._group(repository)
        volumes = await tidy(group, all_hosts=True)
        if volumes:
            text = f"{group.name} still holds {len(volumes)} volumes, such as {volumes[0].name}"
            raise StorageError(numbers.REPOSITORY_NOT_EMPTY, text)
        await group.access.close()
        await group.change("group removed", "vgremove", "--yes", group.name)
        for device in group.tool.devices:
            await group.tool.call("pvremove", "--yes", str(device))
            self._step("device released")
        await self._let_go(repository, group)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        volumes = await tidy(self._group(repository))
        return [_disk_info(uuid, volume) for volume in volumes if (uuid := disk_of(volume))]

    async def size(self, repository: Repository) -> RepositorySize:
        group = self._group(repository)
        found = await _find(group.tool, group.name)
        volumes = await group.tool.volumes(group.name)
        allocated = sum(valid_size(volume) for volume in volumes if disk_of(volume))
        return RepositorySize(found.size, found.size - found.free, allocated)

    # Disks

    async def create_disk(
        self, repository: Repository, uuid: str, virtual_size: int, sm_config: Mapping[str, str] = NOTHING
    ) -> DiskInfo:
        group = self._group(repository)
        _check_format(sm_config)
        async with group.hold(_checked(uuid)), making(group, uuid, virtual_size) as volume:
            await zero(await group.access.open(volume), 0, volume.size, group.tool.workers)
        return _disk_info(uuid, volume)

    async def copy_disk(
        self, source: DiskSource, repository: Repository, uuid: str, virtual_size: int, progress: Progress
    ) -> DiskInfo:
        group = self._group(repository)
        await in_thread(check_source, source)
        async with group.hold(_checked(uuid)), making(group, uuid, virtual_size) as volume:
            await fill(await group.access.open(volume), volume.size, source, progress, group.tool.workers)
        return _disk_info(uuid, volume)

    async def destroy_disk(self, repository: Repository, location: str) -> None:
        group = self._group(repository)
        if not UUID_PATTERN.fullmatch(location):
            return
        async with group.hold(location):
            try:
                await group.change("volume removed", "lvremove", "--yes", group.path(disk_name(location)))
            except StorageError as error:
                if error.number != numbers.DISK_MISSING:
                    raise

    async def resize_disk(
        self,
        repository: Repository,
        location: str,
        virtual_size: int,
        live: Callable[[int], Awaitable[None]] | None = None,
    ) -> DiskInfo:
        """As the contract says. When `live` fails the disk has grown all the same: its domain may have seen it."""
        group = self._group(repository)
        async with group.hold(location):
            volume = await self._disk(group, location)
            size = group.extents(virtual_size) * group.extent_size
            if size < volume.size:
                raise StorageError(numbers.DISK_SIZE, f"a disk of {volume.size} bytes cannot shrink to {virtual_size}")
            if live is None and volume.opened:
                await self._refuse_opened(group, location)
            if size > volume.size:
                await grow(group, location, volume, size, may_move=live is None)
            if live is not None:
                await live(size)
            return _disk_info(location, await self._disk(group, location))

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        return _disk_info(location, await self._disk(self._group(repository), location))

    async def source(self, repository: Repository, location: str) -> DiskSource:
        group = self._group(repository)
        volume = await self._disk(group, location)
        return DiskSource(await group.access.open(volume), DiskFormat.RAW)

    # Inside

    def _group(self, repository: Repository) -> AttachedGroup:
        group = self._groups.get(repository.uuid)
        if group is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        return group

    async def _tool(self, name: str, device_config: Mapping[str, str]) -> LvmTool:
        """The tool for what a configuration names, which is connected then."""
        if self._mapped is None:
            self._mapped = await in_thread(has_device_mapper)
        devices = await self._medium.connect(device_config)
        return LvmTool(devices, mapped=self._mapped, workers=Workers(name))

    async def _refuse_opened(self, group: AttachedGroup, location: str) -> None:
        """Raises `StorageError` 24 for a disk that is open, and not just for udev to have a look."""
        await group.access.settle()
        if (await self._disk(group, location)).opened:
            raise StorageError(numbers.DISK_IN_USE, f"disk {location} is in use")

    @asynccontextmanager
    async def _connected(self, name: str, device_config: Mapping[str, str]) -> AsyncIterator[LvmTool]:
        tool = await self._tool(name, device_config)
        try:
            yield tool
        finally:
            await finish(self._medium.disconnect(device_config))

    async def _open(self, repository: Repository) -> AttachedGroup:
        name = group_name(_checked(repository.uuid))
        tool = await self._tool(name, repository.device_config)
        lock = None
        try:
            found = await _find(tool, name)
            lock = await in_thread(take_lock, self._locks / f"domzero-{name}")
            access = await _access(tool, found)
        except BaseException:
            if lock is not None:
                os.close(lock)
            await finish(self._medium.disconnect(repository.device_config))
            raise
        return AttachedGroup(name, tool, access, found.extent_size, lock, self._step, self._host)

    async def _release_blank(self, repository: Repository) -> bool:
        """Do what is left of a `destroy` that was killed when the group was gone already; says whether it was that."""
        async with self._connected(repository.uuid, repository.device_config) as tool:
            physical = await tool.physical()
            if not physical or any(each.group for each in physical):
                return False
            for each in physical:
                await tool.call("pvremove", "--yes", each.device)
            return True

    async def _let_go(self, repository: Repository, group: AttachedGroup) -> None:
        del self._groups[repository.uuid]
        let_go(group.lock)
        await self._medium.disconnect(repository.device_config)

    async def _disk(self, group: AttachedGroup, location: str) -> Volume:
        """The volume of a disk. Raises `StorageError` 144."""
        if not UUID_PATTERN.fullmatch(location):
            raise StorageError(numbers.DISK_MISSING, f"there is no disk {location!r}")
        volume = await group.tool.volume(group.name, disk_name(location))
        if disk_of(volume) is None:
            raise StorageError(numbers.DISK_MISSING, f"there is no disk {location}")
        return volume


async def _access(tool: LvmTool, group: Group) -> Access:
    if tool.mapped:
        return MappedAccess(tool, group.name)
    starts = {physical.device: physical.data_start for physical in await tool.physical()}
    access = DirectAccess(starts, group.extent_size)
    try:
        await in_thread(access.hold)
    except BaseException:
        await finish(access.close())
        raise
    return access


async def _find(tool: LvmTool, name: str) -> Group:
    """The group as it is now. Raises `StorageError` 47 when it, or one of its devices, is not there."""
    found = next((group for group in await tool.groups() if group.name == name), None)
    if found is None:
        devices = ", ".join(map(str, tool.devices))
        raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"there is no volume group {name} on {devices}")
    if found.missing:
        raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"{found.missing} devices of {name} are not there")
    return found


def _disk_info(uuid: str, volume: Volume) -> DiskInfo:
    return DiskInfo(uuid, uuid, valid_size(volume), volume.size, sm_config={formats.KEY: formats.RAW.name})


def _checked(uuid: str) -> str:
    if not UUID_PATTERN.fullmatch(uuid):
        raise StorageError(numbers.INVALID_ARGUMENT, f"{uuid!r} is no uuid")
    return uuid


def _check_format(sm_config: Mapping[str, str]) -> None:
    asked = sm_config.get(formats.KEY)
    if asked and asked != formats.RAW.name:
        raise StorageError(numbers.DISK_TYPE, f"disks are raw here, not {asked!r}")
