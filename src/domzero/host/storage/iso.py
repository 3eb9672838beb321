"""Repositories of type `iso`: a directory whose `*.iso` files are read-only CD images. Nothing is ever written."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid5

from domzero.finish import in_thread
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.place import location_of
from domzero.host.storage.protocol import (
    DiskInfo,
    DriverInfo,
    Progress,
    Repository,
    RepositorySize,
    StorageError,
)

INFO = DriverInfo(
    type="iso",
    name="Directory of CD images",
    description="CD images are the *.iso files of a local directory, offered read-only under their file names",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=("VDI_ATTACH", "VDI_DETACH"),
    configuration={"location": "absolute path of the directory"},
    content_type="iso",
)


class IsoStorage:
    """Implements `StorageDriver`, with `StorageError` 38 for whatever would write.

    A disk's location is its file name; its uuid follows from that and from the repository's, so it stays the same.
    Links are left out, for they could lead anywhere.
    """

    def __init__(self) -> None:
        self._attached: dict[str, Path] = {}

    def info(self) -> DriverInfo:
        return INFO

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - the directory is there already
        await in_thread(_list, location_of(repository))

    async def attach(self, repository: Repository) -> None:
        directory = location_of(repository)
        await in_thread(_list, directory)
        self._attached[repository.uuid] = directory

    async def detach(self, repository: Repository) -> None:
        self._attached.pop(repository.uuid, None)

    async def destroy(self, repository: Repository) -> None:
        """Forgets the repository; the images are not ours to erase."""
        await self.detach(repository)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        found = await in_thread(_list, self._directory(repository))
        return [_disk_info(repository, name, status) for name, status in found.items()]

    async def size(self, repository: Repository) -> RepositorySize:
        """The images' own size: the repository cannot be filled."""
        found = await in_thread(_list, self._directory(repository))
        used = sum(status.st_blocks * 512 for status in found.values())
        return RepositorySize(used, used, sum(status.st_size for status in found.values()))

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        return _disk_info(repository, location, await in_thread(_status, self._directory(repository), location))

    async def source(self, repository: Repository, location: str) -> DiskSource:
        directory = self._directory(repository)
        await in_thread(_status, directory, location)
        return DiskSource(directory / location, DiskFormat.RAW)

    # What a read-only repository does not do

    async def create_disk(self, repository: Repository, uuid: str, virtual_size: int) -> DiskInfo:  # noqa: ARG002
        raise _refusal(repository)

    async def create_image(self, repository: Repository, uuid: str) -> DiskInfo:  # noqa: ARG002
        raise _refusal(repository)

    async def destroy_disk(self, repository: Repository, location: str) -> None:  # noqa: ARG002 - always refused
        raise _refusal(repository)

    async def clone_disk(self, repository: Repository, location: str, uuid: str) -> DiskInfo:  # noqa: ARG002
        raise _refusal(repository)

    async def snapshot_disk(
        self,
        repository: Repository,
        location: str,  # noqa: ARG002 - always refused
        uuid: str,  # noqa: ARG002
        switch: Callable[[DiskSource], Awaitable[None]] | None,  # noqa: ARG002
    ) -> DiskInfo:
        raise _refusal(repository)

    async def copy_disk(
        self,
        source: DiskSource,  # noqa: ARG002 - always refused
        repository: Repository,
        uuid: str,  # noqa: ARG002
        virtual_size: int,  # noqa: ARG002
        progress: Progress,  # noqa: ARG002
    ) -> DiskInfo:
        raise _refusal(repository)

    async def resize_disk(self, repository: Repository, location: str, virtual_size: int) -> DiskInfo:  # noqa: ARG002
        raise _refusal(repository)

    def _directory(self, repository: Repository) -> Path:
        directory = self._attached.get(repository.uuid)
        if directory is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        return directory


def _refusal(repository: Repository) -> StorageError:
    return StorageError(numbers.NOT_IMPLEMENTED, f"repository {repository.uuid} is read-only")


def _disk_info(repository: Repository, name: str, status: os.stat_result) -> DiskInfo:
    uuid = str(uuid5(UUID(repository.uuid), name))
    return DiskInfo(uuid, name, status.st_size, status.st_blocks * 512, read_only=True, name=name)


def _is_image(name: str) -> bool:
    """Whether a file of this name is offered. A name that is not UTF-8 could not be said in the API."""
    return name.lower().endswith(".iso") and not name.startswith(".") and name.isprintable() and "/" not in name


def _list(directory: Path) -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if _is_image(entry.name) and entry.is_file(follow_symlinks=False):
                    found[entry.name] = entry.stat(follow_symlinks=False)
    except OSError as error:
        raise numbers.from_os(error) from error
    return dict(sorted(found.items()))


def _status(directory: Path, name: str) -> os.stat_result:
    if not _is_image(name):
        raise StorageError(numbers.DISK_MISSING, f"there is no image {name!r}")
    try:
        status = os.lstat(directory / name)
    except OSError as error:
        raise numbers.from_os(error, numbers.DISK_MISSING) from error
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(numbers.DISK_MISSING, f"{name!r} is no regular file")
    return status
