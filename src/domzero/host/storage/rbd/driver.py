"""Repositories of type `rbd`: images of a Ceph pool, which QEMU opens by itself.

A repository is the image `domzero.REPOSITORY`, its disks are `domzero.REPOSITORY.DISK`; other images of the pool are
left alone. A copy is made under a name that ends in `.new`, and gets its own when it is whole. Such a name that was
left behind by a daemon that was killed is removed when nobody has had the image open for a while: hosts share a pool,
and another may be at work on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from domzero.finish import finish, in_thread
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.files.formats import KEY, RAW
from domzero.host.storage.files.place import Step
from domzero.host.storage.images import fill_remote
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
from domzero.host.storage.rbd.report import DISK, MARKER, UNFINISHED, Image
from domzero.host.storage.rbd.settings import CONFIGURATION, read_settings
from domzero.host.storage.rbd.tool import PATIENCE, RbdTool
from domzero.host.storage.refusals import Refusals
from domzero.host.storage.sources import check_source
from domzero.host.storage.uuids import UUID_PATTERN

log = logging.getLogger(__name__)

MIB = 1 << 20
MARKER_SIZE = MIB
"""Nothing is written there. It is not 0 because `rbd du` of Ceph 16 dies of images of no size."""
ABANDONED = 600.0
"""Seconds after which an unfinished image that nobody has open is nobody's."""

INFO = DriverInfo(
    type="rbd",
    name="Ceph block devices",
    description="Disks are images of a Ceph pool, reached by QEMU without the kernel",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=(
        "SR_PROBE",
        "SR_UPDATE",
        "THIN_PROVISIONING",
        "VDI_ATTACH",
        "VDI_CREATE",
        "VDI_DELETE",
        "VDI_DETACH",
        "VDI_INTRODUCE",
        "VDI_RESIZE",
        "VDI_RESIZE_ONLINE",
        "VDI_UPDATE",
    ),
    configuration=CONFIGURATION,
    holds_images=False,
)


@dataclass(slots=True)
class Attached:
    """One attached repository. `busy` are images in the making; `left` when each leftover was first seen."""

    tool: RbdTool
    busy: set[str] = field(default_factory=set)
    left: dict[str, float] = field(default_factory=dict)


class RbdStorage(Refusals):
    """Implements `StorageDriver`. Disks share no layers: a clone is a full copy, and there are no snapshots.

    `patience` bounds each command and `abandoned` is when a leftover is removed, both in seconds. `step` is told of
    each change.
    """

    refusal = "disks in Ceph can be made, copied, grown and removed, no more"

    def __init__(self, patience: float = PATIENCE, abandoned: float = ABANDONED, step: Step = lambda _: None) -> None:
        self._patience = patience
        self._abandoned = abandoned
        self._step = step
        self._attached: dict[str, Attached] = {}

    def info(self) -> DriverInfo:
        return INFO

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:  # noqa: ARG002
        tool = self._tool(device_config)
        names = await tool.names()
        room = await tool.room()
        return [
            ProbedRepository(found[1], room.used + room.free, room.free)
            for found in map(MARKER.fullmatch, names)
            if found is not None
        ]

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - a pool has the size it has
        if not UUID_PATTERN.fullmatch(repository.uuid):
            raise StorageError(numbers.INVALID_ARGUMENT, f"{repository.uuid!r} is no uuid")
        try:
            await self._tool(repository.device_config).create(_marker(repository), MARKER_SIZE)
        except StorageError as error:
            if error.number != numbers.DISK_EXISTS:
                raise
            text = f"the pool holds repository {repository.uuid} already"
            raise StorageError(numbers.REPOSITORY_EXISTS, text) from error

    async def attach(self, repository: Repository) -> None:
        present = self._attached.get(repository.uuid)
        tool = self._tool(repository.device_config)
        if _marker(repository) not in await tool.names():
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"the pool does not hold repository {repository.uuid}")
        if present is None or present.tool.settings != tool.settings:
            self._attached[repository.uuid] = Attached(tool)

    async def detach(self, repository: Repository) -> None:
        self._attached.pop(repository.uuid, None)

    async def destroy(self, repository: Repository) -> None:
        """Removes its disks, then its mark: whatever ends it early, it can be done again."""
        tool = self._tool(repository.device_config)
        for name in await tool.names():
            found = DISK.fullmatch(name) or UNFINISHED.fullmatch(name)
            if found is not None and found[1] == repository.uuid:
                await tool.remove(name)
        await tool.remove(_marker(repository))
        await self.detach(repository)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        attached = self._present(repository)
        images = await attached.tool.images()
        await self._clear_up(repository, attached, {image.name for image in images})
        named = ((DISK.fullmatch(image.name), image) for image in images)
        return [_disk_info(found[2], image) for found, image in named if found and found[1] == repository.uuid]

    async def size(self, repository: Repository) -> RepositorySize:
        """The pool's. Where the cluster does not count, what the disks take is all that is known."""
        tool = self._present(repository).tool
        room, disks = await tool.room(), await self.scan(repository)
        used = room.used or sum(disk.physical_utilisation for disk in disks)
        return RepositorySize(used + room.free, used, sum(disk.virtual_size for disk in disks))

    async def create_disk(
        self, repository: Repository, uuid: str, virtual_size: int, sm_config: Mapping[str, str] = NOTHING
    ) -> DiskInfo:
        attached = self._present(repository)
        if sm_config.get(KEY, RAW.name) != RAW.name:
            raise StorageError(numbers.DISK_TYPE, f"disks in Ceph are raw, not {sm_config[KEY]!r}")
        size = _rounded(virtual_size)
        await finish(attached.tool.create(_disk(repository, _checked(uuid)), size))
        self._step("disk made")
        return _disk_info(uuid, Image(uuid, size, 0))

    async def destroy_disk(self, repository: Repository, location: str) -> None:
        if UUID_PATTERN.fullmatch(location):
            await finish(self._present(repository).tool.remove(_disk(repository, location)))
            self._step("disk removed")

    async def copy_disk(
        self, source: DiskSource, repository: Repository, uuid: str, virtual_size: int, progress: Progress
    ) -> DiskInfo:
        attached = self._present(repository)
        final, tool = _disk(repository, _checked(uuid)), attached.tool
        await in_thread(check_source, source)
        if final in await tool.names():
            raise StorageError(numbers.DISK_EXISTS, f"there is a disk {uuid} already")
        async with _making(attached, f"{final}.new") as name:
            await finish(tool.create(name, _rounded(virtual_size)))
            self._step("copy begun")
            await fill_remote(source, tool.settings.image(name), progress)
            self._step("copy filled")
            await finish(tool.rename(name, final))
            self._step("copy published")
        return await self.update_disk(repository, uuid)

    async def resize_disk(
        self,
        repository: Repository,
        location: str,
        virtual_size: int,
        live: Callable[[int], Awaitable[None]] | None = None,
    ) -> DiskInfo:
        """An image can be grown while it is open; `live` makes the domain look."""
        tool, size = self._present(repository).tool, _rounded(virtual_size)
        name = _disk(repository, _known(location))
        present = await tool.size(name)
        if size < present:
            raise StorageError(numbers.DISK_SIZE, f"disk {location} has {present} bytes and cannot be made smaller")
        if size > present:
            await finish(tool.resize(name, size))
            self._step("disk grown")
        if live is not None:
            await live(size)
        return await self.update_disk(repository, location)

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        tool = self._present(repository).tool
        name = _disk(repository, _known(location))
        return _disk_info(location, Image(name, await tool.size(name), await tool.used(name)))

    async def source(self, repository: Repository, location: str) -> DiskSource:
        tool = self._present(repository).tool
        name = _disk(repository, _known(location))
        await tool.size(name)
        return DiskSource(tool.settings.image(name), DiskFormat.RAW)

    def _tool(self, device_config: Mapping[str, str]) -> RbdTool:
        return RbdTool(read_settings(device_config), self._patience)

    def _present(self, repository: Repository) -> Attached:
        attached = self._attached.get(repository.uuid)
        if attached is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        return attached

    async def _clear_up(self, repository: Repository, attached: Attached, names: set[str]) -> None:
        """Remove what killed copies left."""
        now = asyncio.get_running_loop().time()
        found = ((UNFINISHED.fullmatch(name), name) for name in names - attached.busy)
        left = {name for match, name in found if match and match[1] == repository.uuid}
        attached.left = {name: attached.left.get(name, now) for name in left}
        for name, seen in attached.left.items():
            if now - seen >= self._abandoned and not await attached.tool.is_open(name):
                await attached.tool.remove(name)


@asynccontextmanager
async def _making(attached: Attached, name: str) -> AsyncIterator[str]:
    """An image in the making, which goes if anything goes wrong.

    For half a minute after its death, Ceph takes a killed program for one that has the image open; a scan removes it
    then.
    """
    if name in attached.busy:
        raise StorageError(numbers.DISK_EXISTS, f"{name} is being made already")
    attached.busy.add(name)
    try:
        yield name
    except BaseException:
        try:
            await finish(attached.tool.remove(name))
        except StorageError as error:
            log.warning("%s is left to be removed later: %s", name, error.text)
        raise
    finally:
        attached.busy.discard(name)


def _marker(repository: Repository) -> str:
    return f"domzero.{repository.uuid}"


def _disk(repository: Repository, uuid: str) -> str:
    return f"{_marker(repository)}.{uuid}"


def _checked(uuid: str) -> str:
    if not UUID_PATTERN.fullmatch(uuid):
        raise StorageError(numbers.INVALID_ARGUMENT, f"{uuid!r} is no uuid")
    return uuid


def _known(location: str) -> str:
    if not UUID_PATTERN.fullmatch(location):
        raise StorageError(numbers.DISK_MISSING, f"there is no disk {location!r}")
    return location


def _rounded(virtual_size: int) -> int:
    return RAW.rounded(-(-virtual_size // MIB) * MIB)


def _disk_info(uuid: str, image: Image) -> DiskInfo:
    used = image.used if image.used >= 0 else image.size
    return DiskInfo(uuid, uuid, image.size, used, sm_config={KEY: RAW.name})
