"""Repositories of type `iso`: the `*.iso` and `*.img` files of a directory or of a share are read-only CD images.

Nothing is ever written. A share is mounted, softly and read-only, below the directory of mounts; whatever touches it is
given bounded time.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import mounts, numbers
from domzero.host.storage.iso.location import CONFIGURATION, Share, images_of
from domzero.host.storage.mounts import MountRequest
from domzero.host.storage.protocol import (
    DiskInfo,
    DriverInfo,
    Repository,
    RepositorySize,
    StorageError,
)
from domzero.host.storage.refusals import Refusals
from domzero.host.storage.worker import Workers

log = logging.getLogger(__name__)

INFO = DriverInfo(
    type="iso",
    name="CD images",
    description="The *.iso and *.img files of a directory, an NFS export or an SMB share, offered read-only",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=("SR_UPDATE", "VDI_ATTACH", "VDI_DETACH", "VDI_UPDATE"),
    configuration=CONFIGURATION,
    content_type="iso",
)

ENDINGS = (".iso", ".img")
IMAGES_LIMIT = 16384
"""Images of one repository; further ones are not offered."""
MOUNTS = Path("/run/domzero/mounts")
SHARE_PATIENCE = 60.0
"""Seconds that one look at a share may take: more than a soft mount does before it fails."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """An attached repository."""

    directory: Path
    workers: Workers


class IsoStorage(Refusals):
    """Implements `StorageDriver`, with `StorageError` 38 for whatever would write.

    Shares are mounted in `mounts`, each in a directory named by its repository. A disk's location is its file name;
    its uuid follows from that and from the repository's, so it stays the same. Links are left out, for they could lead
    anywhere.
    """

    refusal = "repositories of CD images are read-only"

    def __init__(self, mounts: Path = MOUNTS) -> None:
        self._mounts = mounts
        self._attached: dict[str, Shelf] = {}
        self._shares: dict[tuple[str, str], Workers] = {}

    def info(self) -> DriverInfo:
        return INFO

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - the images are there already
        """Looks whether the images can be had."""
        if repository.uuid in self._attached:
            return
        await self._attach(repository)
        await self.detach(repository)

    async def attach(self, repository: Repository) -> None:
        self._attached[repository.uuid] = await self._attach(repository)

    async def detach(self, repository: Repository) -> None:
        images = images_of(repository)
        if isinstance(images, Share):
            await mounts.release(mounts.point_of(self._mounts, repository), numbers.ISO_UNMOUNT)
            if (workers := self._shares.get((repository.uuid, images.source))) and workers.answers:
                del self._shares[repository.uuid, images.source]
        self._attached.pop(repository.uuid, None)

    async def destroy(self, repository: Repository) -> None:
        """Forgets the repository; the images are not ours to erase."""
        await self.detach(repository)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        shelf = self._shelf(repository)
        found = await shelf.workers.run(_list, shelf.directory)
        return [_disk_info(repository, name, status) for name, status in found.items()]

    async def size(self, repository: Repository) -> RepositorySize:
        """The images' own size: the repository cannot be filled."""
        shelf = self._shelf(repository)
        found = await shelf.workers.run(_list, shelf.directory)
        used = sum(status.st_blocks * 512 for status in found.values())
        return RepositorySize(used, used, sum(status.st_size for status in found.values()))

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        shelf = self._shelf(repository)
        return _disk_info(repository, location, await shelf.workers.run(_status, shelf.directory, location))

    async def source(self, repository: Repository, location: str) -> DiskSource:
        shelf = self._shelf(repository)
        await shelf.workers.run(_status, shelf.directory, location)
        return DiskSource(shelf.directory / location, DiskFormat.RAW)

    async def _attach(self, repository: Repository) -> Shelf:
        images = images_of(repository)
        if isinstance(images, Path):
            shelf = Shelf(images, Workers(str(images)))
            await shelf.workers.run(_list, images)
            return shelf
        point = mounts.point_of(self._mounts, repository)
        # Kept while it may be hanging, so that further attempts do not hang as well.
        workers = self._shares.setdefault((repository.uuid, images.source), Workers(images.source, SHARE_PATIENCE))
        with _password(images) as (descriptors, environment):
            request = MountRequest(images.type, images.source, images.options, environment, descriptors)
            await mounts.mount(request, point, workers, images.failure)
        try:
            await mounts.forbid_links(point, workers, images.options)
            directory = await workers.run(_within, point, images)
            await workers.run(_list, directory)
        except StorageError as error:
            await mounts.release(point, numbers.ISO_UNMOUNT)
            raise StorageError(numbers.ISO_SHARE, f"{images.source} cannot be read: {error.text}") from error
        return Shelf(directory, workers)

    def _shelf(self, repository: Repository) -> Shelf:
        shelf = self._attached.get(repository.uuid)
        if shelf is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        return shelf


@contextmanager
def _password(share: Share) -> Iterator[tuple[tuple[int, ...], dict[str, str]]]:
    """A descriptor from which mount.cifs(8) reads the password, and the variable that tells it which.

    It takes what it reads, a line's end included, for the password.
    """
    if share.password is None:
        yield (), {}
        return
    descriptor = os.memfd_create("password", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, share.password.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield (descriptor,), {"PASSWD_FD": str(descriptor)}
    finally:
        os.close(descriptor)


def _within(point: Path, share: Share) -> Path:
    """The images' directory. A link that leads out of the share is not followed."""
    directory = (point / share.inside).resolve()
    if not directory.is_relative_to(point.resolve()):
        raise StorageError(numbers.ISO_LOCATION, f"iso_path {share.inside} leads out of the share")
    return directory


def _disk_info(repository: Repository, name: str, status: os.stat_result) -> DiskInfo:
    uuid = str(uuid5(UUID(repository.uuid), name))
    return DiskInfo(uuid, name, status.st_size, status.st_blocks * 512, read_only=True, name=name)


def _is_image(name: str) -> bool:
    """Whether a file of this name is offered. A name that is not UTF-8 could not be said in the API."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".") and name.isprintable() and "/" not in name


def _list(directory: Path) -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not _is_image(entry.name) or not entry.is_file(follow_symlinks=False):
                    continue
                if len(found) == IMAGES_LIMIT:
                    log.warning("%s has more than %d images; the rest is not offered", directory, IMAGES_LIMIT)
                    break
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
