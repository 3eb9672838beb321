"""Repositories of type `file` that only pretend: no tool is needed and nothing takes space until it is written.

Each disk is a sparse raw file of its full size, so that what is imported can be exported again and disks survive the
daemon. Copies are real copies of whatever has been written.

A tester asks for failures and delays in the repository's device_config (or sm_config):

| key                 | value          | what it does |
|---------------------|----------------|--------------|
| `sim:fail-<verb>`   | number or text | the verb fails: with that SM error number, or with this text and number 202 |
| `sim:delay-<verb>`  | seconds        | the verb takes that long |
| `sim:physical-size` | bytes          | how large the medium is (1 TiB); disks' full sizes count as used |

`<verb>` is one of create, attach, detach, destroy, scan, size, create-disk, destroy-disk, clone-disk, snapshot-disk,
copy-disk, create-image, resize-disk, update-disk, source.
Whoever moves the bytes of a disk (`contents`) meets three more: open-content, read-content, write-content.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from domzero.finish import in_thread
from domzero.host.clock import Clock
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.files import file
from domzero.host.storage.files.formats import RAW, chosen
from domzero.host.storage.files.memory import IMAGE_NAME, find_image, image_name
from domzero.host.storage.protocol import (
    NOTHING,
    DiskInfo,
    DriverInfo,
    Progress,
    Repository,
    RepositorySize,
    StorageError,
)
from domzero.host.storage.refusals import Refusals
from domzero.host.storage.sim_faults import enter, physical_size
from domzero.host.storage.sparse import copy_sparse
from domzero.host.storage.uuids import UUID, UUID_PATTERN

DISK_NAME = re.compile(rf"({UUID})\.raw", re.ASCII)

INFO = dataclasses.replace(
    file.INFO, name="Simulated repository", description="Disks that take no space until they are written"
)


class SimStorage(Refusals):
    """Implements `StorageDriver`. A repository is a directory below `directory`, named by its uuid.

    device_config's `location` is asked for, as `file` does, but may be any text.
    """

    def __init__(self, clock: Clock, directory: Path) -> None:
        self._clock = clock
        self._directory = directory
        self._shelves: dict[str, dict[str, int]] = {}
        """The virtual size of each disk, of each attached repository."""
        self._asked: dict[Path, Repository] = {}
        """By directory: each repository as it was when the source of one of its disks was asked for."""

    def info(self) -> DriverInfo:
        return INFO

    # Repositories

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - there is no medium to divide
        self._check(repository)
        await enter("create", repository, self._clock)
        directory = self._path(repository)
        if directory.exists():
            raise StorageError(numbers.REPOSITORY_EXISTS, f"repository {repository.uuid} is there already")
        with _translated():
            directory.mkdir(parents=True)

    async def attach(self, repository: Repository) -> None:
        await enter("attach", repository, self._clock)
        if repository.uuid not in self._shelves:
            with _translated():
                self._shelves[repository.uuid] = await in_thread(_load, self._path(repository))

    async def detach(self, repository: Repository) -> None:
        await enter("detach", repository, self._clock)
        self._shelves.pop(repository.uuid, None)
        self._asked.pop(self._path(repository), None)

    async def destroy(self, repository: Repository) -> None:
        await enter("destroy", repository, self._clock)
        with _translated():
            await in_thread(_erase, self._path(repository))
        self._shelves.pop(repository.uuid, None)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        await enter("scan", repository, self._clock)
        return [self._disk_info(repository, uuid) for uuid in sorted(self._shelf(repository))]

    async def size(self, repository: Repository) -> RepositorySize:
        await enter("size", repository, self._clock)
        used = sum(self._shelf(repository).values())
        return RepositorySize(self._capacity(repository), used, used)

    # Disks

    async def create_disk(
        self,
        repository: Repository,
        uuid: str,
        virtual_size: int,
        sm_config: Mapping[str, str] = NOTHING,
    ) -> DiskInfo:
        """Every format is raw in here, but an unknown one is refused as elsewhere."""
        chosen(sm_config)
        await enter("create-disk", repository, self._clock)
        async with self._making(repository, uuid, RAW.rounded(virtual_size)):
            return self._disk_info(repository, uuid)

    async def create_image(self, repository: Repository, uuid: str) -> DiskInfo:
        await enter("create-image", repository, self._clock)
        async with self._making(repository, uuid, 0, image_name(uuid)):
            return self._disk_info(repository, uuid)

    async def destroy_disk(self, repository: Repository, location: str) -> None:
        await enter("destroy-disk", repository, self._clock)
        if self._shelf(repository).pop(location, None) is not None:
            with _translated():
                self._disk(repository, location).unlink(missing_ok=True)
                (self._path(repository) / image_name(location)).unlink(missing_ok=True)

    async def clone_disk(self, repository: Repository, location: str, uuid: str) -> DiskInfo:
        await enter("clone-disk", repository, self._clock)
        return await self._duplicate(repository, location, uuid)

    async def snapshot_disk(
        self, repository: Repository, location: str, uuid: str, switch: Callable[[DiskSource], Awaitable[None]] | None
    ) -> DiskInfo:
        """The layer that a running machine is moved to is the same file: a simulated machine writes nothing."""
        await enter("snapshot-disk", repository, self._clock)
        self._known(repository, location)
        if switch is not None:
            await switch(DiskSource(self._disk(repository, location), DiskFormat.RAW))
        return await self._duplicate(repository, location, uuid)

    async def copy_disk(
        self, source: DiskSource, repository: Repository, uuid: str, virtual_size: int, progress: Progress
    ) -> DiskInfo:
        """Only raw files can be read: for anything else a tool is needed (`StorageError` 38)."""
        await enter("copy-disk", repository, self._clock)
        size = RAW.rounded(virtual_size)
        async with self._making(repository, uuid, size) as path:
            await self._fill(source, path, size, progress)
            return self._disk_info(repository, uuid)

    async def resize_disk(
        self,
        repository: Repository,
        location: str,
        virtual_size: int,
        live: Callable[[int], Awaitable[None]] | None = None,
    ) -> DiskInfo:
        await enter("resize-disk", repository, self._clock)
        present, size = self._known(repository, location), RAW.rounded(virtual_size)
        if size < present:
            raise StorageError(numbers.DISK_SIZE, f"a disk of {present} bytes cannot shrink to {size}")
        self._reserve(repository, size - present)
        with _translated():
            os.truncate(self._disk(repository, location), size)
        if live is not None:
            await live(size)
        self._shelf(repository)[location] = size
        return self._disk_info(repository, location)

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        await enter("update-disk", repository, self._clock)
        self._known(repository, location)
        image = find_image(self._path(repository), location)
        if image is not None:
            self._shelf(repository)[location] = image.virtual_size
            return image
        return self._disk_info(repository, location)

    async def source(self, repository: Repository, location: str) -> DiskSource:
        await enter("source", repository, self._clock)
        self._known(repository, location)
        self._asked[self._path(repository)] = repository
        if find_image(self._path(repository), location):
            return DiskSource(self._path(repository) / image_name(location), DiskFormat.RAW)
        return DiskSource(self._disk(repository, location), DiskFormat.RAW)

    def repository_at(self, path: Path) -> Repository | None:
        """The repository that a source's file is in, with its present settings; None for a file of somebody else."""
        return self._asked.get(path.parent)

    # Inside

    def _check(self, repository: Repository) -> None:
        """Raises `StorageError` for a configuration that `create` refuses."""
        if not repository.device_config.get("location"):
            raise StorageError(numbers.LOCATION_MISSING, "device_config has no location")

    def _capacity(self, repository: Repository) -> int:
        """Bytes that the medium pretends to have."""
        return physical_size(repository)

    async def _fill(self, source: DiskSource, path: Path, size: int, progress: Progress) -> None:
        """Copy a disk's content into a blank raw file of `size` bytes."""
        if source.format is not DiskFormat.RAW or not isinstance(source.place, Path):
            raise StorageError(numbers.NOT_IMPLEMENTED, f"the simulator cannot read {source.format.value}")
        with _translated(numbers.DISK_MISSING):
            present = source.path.stat().st_size
        if present > size:
            raise StorageError(numbers.DISK_SIZE, f"{present} bytes do not fit into {size}")
        await copy_sparse(source.path, path, progress)

    def _path(self, repository: Repository) -> Path:
        if not UUID_PATTERN.fullmatch(repository.uuid):
            raise StorageError(numbers.INVALID_ARGUMENT, f"{repository.uuid!r} is no uuid")
        return self._directory / repository.uuid

    def _disk(self, repository: Repository, uuid: str) -> Path:
        return self._path(repository) / f"{uuid}.raw"

    def _shelf(self, repository: Repository) -> dict[str, int]:
        shelf = self._shelves.get(repository.uuid)
        if shelf is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        return shelf

    def _known(self, repository: Repository, location: str) -> int:
        """The disk's size. Raises `StorageError` 144 when there is none."""
        size = self._shelf(repository).get(location)
        if size is None:
            raise StorageError(numbers.DISK_MISSING, f"there is no disk {location!r}")
        return size

    def _disk_info(self, repository: Repository, uuid: str) -> DiskInfo:
        size = self._known(repository, uuid)
        image = find_image(self._path(repository), uuid)
        if image is not None:
            return image
        with _translated(numbers.DISK_MISSING):
            used = self._disk(repository, uuid).stat().st_blocks * 512
        return DiskInfo(uuid, uuid, size, used)

    def _reserve(self, repository: Repository, size: int) -> None:
        if sum(self._shelf(repository).values()) + size > self._capacity(repository):
            raise StorageError(numbers.NO_SPACE, f"{size} bytes do not fit into the repository any more")

    async def _duplicate(self, repository: Repository, location: str, uuid: str) -> DiskInfo:
        async with self._making(repository, uuid, self._known(repository, location)) as path:
            await copy_sparse(self._disk(repository, location), path, lambda _: None)
            return self._disk_info(repository, uuid)

    @asynccontextmanager
    async def _making(self, repository: Repository, uuid: str, size: int, name: str = "") -> AsyncIterator[Path]:
        """A new blank disk, removed again when the body fails or is cancelled."""
        shelf = self._shelf(repository)
        if not UUID_PATTERN.fullmatch(uuid):
            raise StorageError(numbers.INVALID_ARGUMENT, f"{uuid!r} is no uuid")
        if uuid in shelf:
            raise StorageError(numbers.DISK_EXISTS, f"there is a disk {uuid} already")
        self._reserve(repository, size)
        path = self._path(repository) / name if name else self._disk(repository, uuid)
        shelf[uuid] = size
        try:
            with _translated():
                _make_blank(path, size)
            yield path
        except BaseException:
            shelf.pop(uuid, None)
            path.unlink(missing_ok=True)
            raise


@contextmanager
def _translated(missing: int = numbers.REPOSITORY_UNAVAILABLE) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise numbers.from_os(error, missing) from error


def _make_blank(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _load(directory: Path) -> dict[str, int]:
    patterns = (DISK_NAME, IMAGE_NAME)
    found = ((pattern.fullmatch(entry.name), entry) for entry in os.scandir(directory) for pattern in patterns)
    return {match[1]: entry.stat().st_size for match, entry in found if match}


def _erase(directory: Path) -> None:
    for name in os.listdir(directory):
        if DISK_NAME.fullmatch(name) or IMAGE_NAME.fullmatch(name):
            (directory / name).unlink()
    directory.rmdir()
