"""Repositories of type `file`: qcow2 files in one directory; clones and snapshots share layers.

A copy-on-write copy of disk L as N is made in steps, each of which can be the last: (1) `next-L` and `new-N`, blank
layers above the not yet existing `base-B`; (2) the name `base-B` for L's file, a second name beside the first; (3) a
machine that runs moves to `next-L`; (4) `next-L` takes the name of L; (5) `new-N` takes the name of N. Up to step 2
removing the new names undoes all; after it, step 4 is done by the next `attach` or `scan`, whose rules are in
`layers.leftovers`. At no moment is L's content without the name under which a machine looks for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from domzero.finish import finish, in_thread
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import layers, numbers
from domzero.host.storage import place as places
from domzero.host.storage.images import convert_image, create_image, resize_image
from domzero.host.storage.layers import Layer, base_name, disk_name, new_name, next_name
from domzero.host.storage.memory import find_image, image_name, list_images
from domzero.host.storage.merge import merge_layers
from domzero.host.storage.place import Ownership, Place, Step
from domzero.host.storage.protocol import (
    NOTHING,
    DiskInfo,
    DriverInfo,
    Progress,
    Repository,
    RepositorySize,
    StorageError,
)
from domzero.host.storage.qcow2 import BadImageError
from domzero.host.storage.refusals import Refusals

log = logging.getLogger(__name__)

SECTOR = 512
LARGEST_DISK = 64 << 40

INFO = DriverInfo(
    type="file",
    name="Directory of qcow2 files",
    description="Disks are qcow2 files in a local directory; clones and snapshots share what they have in common",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=(
        "SR_UPDATE",
        "THIN_PROVISIONING",
        "VDI_ATTACH",
        "VDI_CLONE",
        "VDI_CREATE",
        "VDI_DELETE",
        "VDI_DETACH",
        "VDI_INTRODUCE",
        "VDI_RESIZE",
        "VDI_SNAPSHOT",
        "VDI_UPDATE",
    ),
    configuration={"location": "absolute path of the directory"},
)

Switch = Callable[[DiskSource], Awaitable[None]]


class FileStorage(Refusals):
    """Implements `StorageDriver`.

    A disk's location is its uuid. `owner` is the user that machines run as: disks' files (mode 0600) are given to it.
    The directory of an attached repository is locked against other processes. `step` is told of every change on the
    medium.
    """

    def __init__(
        self,
        *,
        owner: Ownership | None = None,
        step: Step = lambda _: None,
        new_uuid: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._owner = owner
        self._step = step
        self._new_uuid = new_uuid
        self._places: dict[str, Place] = {}
        self._opening = asyncio.Lock()

    def info(self) -> DriverInfo:
        return INFO

    # Repositories

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - a directory has no size
        await in_thread(places.prepare, places.location_of(repository), repository.uuid, self._owner)

    async def attach(self, repository: Repository) -> None:
        async with self._opening:
            if repository.uuid not in self._places:
                place = await in_thread(places.open_place, places.location_of(repository), repository.uuid)
                self._places[repository.uuid] = place
        await self._tidy(self._place(repository))

    async def detach(self, repository: Repository) -> None:
        place = self._places.pop(repository.uuid, None)
        if place is not None:
            os.close(place.descriptor)

    async def destroy(self, repository: Repository) -> None:
        async with self._opening:
            if repository.uuid not in self._places:
                location = places.location_of(repository)
                self._places[repository.uuid] = await in_thread(places.open_place, location, repository.uuid)
        await in_thread(places.erase, self._place(repository))
        await self.detach(repository)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        found = await self._tidy(self._place(repository))
        images = await in_thread(list_images, self._place(repository).directory)
        return [*(_disk_info(uuid, layer) for uuid, layer in found.disks().items()), *images]

    async def size(self, repository: Repository) -> RepositorySize:
        place = self._place(repository)
        try:
            medium = await in_thread(os.statvfs, place.directory)
        except OSError as error:
            raise numbers.from_os(error) from error
        total = medium.f_blocks * medium.f_frsize
        return RepositorySize(
            physical_size=total,
            physical_utilisation=total - medium.f_bavail * medium.f_frsize,
            virtual_allocation=sum(place.sizes.values()),
        )

    # Disks

    async def create_disk(
        self, repository: Repository, uuid: str, virtual_size: int, sm_config: Mapping[str, str] = NOTHING
    ) -> DiskInfo:
        if sm_config.get("image-format", "qcow2") != "qcow2":
            raise StorageError(numbers.DISK_TYPE, f"the format {sm_config['image-format']!r} is unknown")
        place = self._place(repository)
        async with place.hold(uuid), self._making(place, uuid):
            await self._make(place, new_name(uuid), rounded(virtual_size))
            return await self._publish(place, uuid)

    async def create_image(self, repository: Repository, uuid: str) -> DiskInfo:
        place = self._place(repository)
        _check_uuid(uuid)
        async with place.hold(uuid):
            await _refuse_taken(place, uuid)
            await in_thread(places.make_blank, place.directory / image_name(uuid))
            self._step("image made")
            return DiskInfo(uuid, uuid, 0, 0)

    async def destroy_disk(self, repository: Repository, location: str) -> None:
        place = self._place(repository)
        if not layers.UUID_PATTERN.fullmatch(location):
            return
        async with place.hold(location):
            shares = await in_thread(_may_share, place.directory, location)
            await in_thread(places.remove, place.directory, disk_name(location), image_name(location))
            place.note_size(location, 0)
            self._step("disk removed")
        if shares:
            await self._tidy(place)

    async def clone_disk(self, repository: Repository, location: str, uuid: str) -> DiskInfo:
        return await self.snapshot_disk(repository, location, uuid, None)

    async def snapshot_disk(self, repository: Repository, location: str, uuid: str, switch: Switch | None) -> DiskInfo:
        place = self._place(repository)
        async with place.hold(location, uuid), self._making(place, uuid):
            chain = await self._chain(place, location)
            header = chain[0].header
            if switch is None and await in_thread(layers.is_blank, place.directory, chain[0]):
                await self._make(place, new_name(uuid), header.virtual_size, header.backing)
            else:
                depth = len(chain)
                if depth >= layers.MERGE_FROM and await merge_layers(place, chain, self._owner, self._step):
                    depth -= 1
                if depth >= layers.CHAIN_LIMIT:
                    raise StorageError(numbers.CHAIN_TOO_LONG, f"disk {location} has {depth} layers already")
                await self._branch(place, location, uuid, header.virtual_size, switch)
            return await self._publish(place, uuid)

    async def copy_disk(
        self, source: DiskSource, repository: Repository, uuid: str, virtual_size: int, progress: Progress
    ) -> DiskInfo:
        place = self._place(repository)
        await in_thread(_check_source, source)
        async with place.hold(uuid), self._making(place, uuid):
            await self._make(place, new_name(uuid), rounded(virtual_size))
            path = place.directory / new_name(uuid)
            await convert_image(source, path, progress)
            await in_thread(places.seal, path, self._owner)
            return await self._publish(place, uuid)

    async def resize_disk(
        self,
        repository: Repository,
        location: str,
        virtual_size: int,
        live: Callable[[int], Awaitable[None]] | None = None,
    ) -> DiskInfo:
        place = self._place(repository)
        async with place.hold(location):
            size = rounded(virtual_size)
            present = (await self._chain(place, location))[0].header.virtual_size
            if size < present:
                raise StorageError(numbers.DISK_SIZE, f"a disk of {present} bytes cannot shrink to {size}")
            if size > present:
                path = place.directory / disk_name(location)
                if live is not None:
                    await live(size)
                else:
                    await finish(resize_image(path, size))
                    await in_thread(places.seal, path, self._owner)
                place.note_size(location, size)
        return await self.update_disk(repository, location)

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        place = self._place(repository)
        image = await self._image(place, location)
        return image or _disk_info(location, (await self._chain(place, location))[0])

    async def source(self, repository: Repository, location: str) -> DiskSource:
        """As the contract says. After a snapshot of a running disk the machine has the file open that `switch` was
        given, which by then has been renamed to this path."""
        place = self._place(repository)
        if await self._image(place, location):
            return DiskSource(place.directory / image_name(location), DiskFormat.RAW)
        chain = await self._chain(place, location)
        backing = tuple(DiskSource(place.directory / layer.name, DiskFormat.QCOW2) for layer in chain[1:])
        return DiskSource(place.directory / disk_name(location), DiskFormat.QCOW2, backing)

    # Inside

    def _place(self, repository: Repository) -> Place:
        place = self._places.get(repository.uuid)
        if place is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        return place

    async def _image(self, place: Place, location: str) -> DiskInfo | None:
        if not layers.UUID_PATTERN.fullmatch(location):
            return None
        return await in_thread(find_image, place.directory, location)

    async def _tidy(self, place: Place) -> layers.Survey:
        async with place.gate:
            before = place.changes
            found = await in_thread(places.tidy, place, self._step)
            if place.changes == before:
                place.sizes = {uuid: layer.header.virtual_size for uuid, layer in found.disks().items()}
        for name, reason in found.unreadable.items():
            log.warning("%s is left out: %s", place.directory / name, reason)
        return found

    async def _chain(self, place: Place, location: str) -> list[Layer]:
        """The layers of a disk, each checked."""
        if not layers.UUID_PATTERN.fullmatch(location):
            raise StorageError(numbers.DISK_MISSING, f"there is no disk {location!r}")
        return await in_thread(_read_chain, place.directory, disk_name(location))

    @asynccontextmanager
    async def _making(self, place: Place, uuid: str) -> AsyncIterator[None]:
        """Make a disk; whatever goes wrong, it is not there afterwards. Refuses a uuid that is there already."""
        _check_uuid(uuid)
        await _refuse_taken(place, uuid)
        async with place.making([new_name(uuid)]):
            try:
                yield
            except BaseException:
                await in_thread(places.remove, place.directory, new_name(uuid), disk_name(uuid))
                place.note_size(uuid, 0)
                raise

    async def _make(self, place: Place, name: str, virtual_size: int, backing: str | None = None) -> None:
        path = place.directory / name
        await create_image(path, virtual_size, backing)
        await in_thread(places.seal, path, self._owner)
        self._step("layer made")

    async def _publish(self, place: Place, uuid: str) -> DiskInfo:
        await in_thread(places.rename, place.directory, new_name(uuid), disk_name(uuid))
        self._step("disk published")
        layer = await in_thread(layers.read_layer, place.directory, disk_name(uuid))
        place.note_size(uuid, layer.header.virtual_size)
        return _disk_info(uuid, layer)

    async def _branch(self, place: Place, location: str, uuid: str, virtual_size: int, switch: Switch | None) -> None:
        """Steps 1 to 4 of the module's docstring."""
        base, following = base_name(self._new_uuid()), next_name(location)
        async with place.making([base, following]):
            try:
                await self._make(place, following, virtual_size, base)
                await self._make(place, new_name(uuid), virtual_size, base)
            except BaseException:
                await in_thread(places.remove, place.directory, following)
                raise
            await finish(self._move_on(place, location, base, switch))

    async def _move_on(self, place: Place, location: str, base: str, switch: Switch | None) -> None:
        following = next_name(location)
        try:
            await in_thread(places.link, place.directory, disk_name(location), base)
            self._step("base linked")
            if switch is not None:
                await switch(DiskSource(place.directory / following, DiskFormat.QCOW2))
        except BaseException:
            await in_thread(places.remove, place.directory, following, base)
            raise
        self._step("machine switched")
        await in_thread(places.rename, place.directory, following, disk_name(location))
        self._step("layer in place")


def _check_uuid(uuid: str) -> None:
    if not layers.UUID_PATTERN.fullmatch(uuid):
        raise StorageError(numbers.INVALID_ARGUMENT, f"{uuid!r} is no uuid")


async def _refuse_taken(place: Place, uuid: str) -> None:
    for name in (disk_name(uuid), image_name(uuid)):
        if await in_thread(os.path.lexists, place.directory / name):
            raise StorageError(numbers.DISK_EXISTS, f"there is a disk {uuid} already")


def _disk_info(uuid: str, layer: Layer) -> DiskInfo:
    return DiskInfo(uuid, uuid, layer.header.virtual_size, layer.used)


def rounded(virtual_size: int) -> int:
    """A size that a disk can have. Raises `StorageError` 79 for none or too much."""
    if not 0 < virtual_size <= LARGEST_DISK:
        raise StorageError(numbers.DISK_SIZE, f"a disk cannot have {virtual_size} bytes")
    return -(-virtual_size // SECTOR) * SECTOR


def _read_chain(directory: Path, name: str) -> list[Layer]:
    try:
        return layers.read_chain(directory, name)
    except OSError as error:
        raise numbers.from_os(error, numbers.DISK_MISSING) from error
    except BadImageError as error:
        raise StorageError(numbers.DISK_UNREADABLE, f"{name} is not used: {error}") from error


def _may_share(directory: Path, location: str) -> bool:
    """Whether removing a disk may leave a base that nobody needs; an unreadable disk may."""
    try:
        return layers.read_layer(directory, disk_name(location)).header.backing is not None
    except (OSError, BadImageError):
        return True


def _check_source(source: DiskSource) -> None:
    """Refuse to follow a name that a file from elsewhere holds."""
    if source.format is DiskFormat.QCOW2:
        _read_chain(source.path.parent, source.path.name)
    elif not source.path.is_file():
        raise StorageError(numbers.DISK_MISSING, f"{source.path} is not there")
