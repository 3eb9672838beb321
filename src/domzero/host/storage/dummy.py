"""Repositories of type `dummy`: storage without any set-up, for tests of client programs, also on a real host.

They are those of the simulator (`sim`, with the same failures on request), below a directory of the daemon's. Their
disks are sparse raw files of full size, so that machines can use them; only what is written takes space.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

from domzero.finish import in_thread
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers, sim
from domzero.host.storage.files.formats import RAW
from domzero.host.storage.images import convert_image
from domzero.host.storage.protocol import DiskInfo, DriverInfo, Progress, Repository, StorageError
from domzero.host.storage.sim import SimStorage
from domzero.host.storage.sources import check_source

INFO = dataclasses.replace(
    sim.INFO,
    type="dummy",
    name="Dummy storage",
    description="Disks that take no space until they are written, for tests of client programs",
    configuration={"size": "bytes that the repository pretends to have (1 TiB)"},
)


class DummyStorage(SimStorage):
    """Implements `StorageDriver`. Any device_config is taken."""

    def info(self) -> DriverInfo:
        return INFO

    async def snapshot_disk(
        self, repository: Repository, location: str, uuid: str, switch: Callable[[DiskSource], Awaitable[None]] | None
    ) -> DiskInfo:
        """A real machine cannot move on to a raw file, hence `StorageError` 82 while one has the disk open."""
        if switch is not None:
            raise StorageError(numbers.SNAPSHOT, f"disk {location} cannot be snapshotted while it is in use")
        return await super().snapshot_disk(repository, location, uuid, None)

    def _check(self, repository: Repository) -> None:
        self._capacity(repository)

    def _capacity(self, repository: Repository) -> int:
        written = repository.device_config.get("size")
        if not written:
            return super()._capacity(repository)
        if not (written.isascii() and written.isdigit()) or len(written) > len(str(RAW.largest)):
            raise StorageError(numbers.INVALID_ARGUMENT, f"size must be a number of bytes, not {written!r}")
        return int(written)

    async def _fill(self, source: DiskSource, path: Path, size: int, progress: Progress) -> None:
        if source.format is DiskFormat.RAW and isinstance(source.place, Path):
            await super()._fill(source, path, size, progress)
            return
        await in_thread(check_source, source)
        await convert_image(source, path, RAW, progress)
