"""The contract between the toolstack and a storage driver.

A *repository* holds *disks*. A driver works on one kind of repository; it gets plain configuration, keeps no state of
its own beyond the medium, and can be called again after a crash: each method either did nothing, or did all, or
leaves what `scan` and a second call can put right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from domzero.host.hypervisor.spec import DiskSource

Progress = Callable[[float], None]
"""Called with a fraction from 0 to 1 as work goes on."""


class StorageError(Exception):
    """The medium could not do it. `number` is XenServer's SM error number (SR_BACKEND_FAILURE_<number>)."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number
        self.text = text


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """What the SM object shows."""

    type: str
    name: str
    description: str
    vendor: str
    copyright: str
    version: str
    required_api_version: str
    capabilities: tuple[str, ...]
    configuration: dict[str, str]
    """device_config key → what it means."""
    content_type: str = "user"


@dataclass(frozen=True, slots=True)
class RepositorySize:
    """Bytes."""

    physical_size: int
    physical_utilisation: int
    virtual_allocation: int


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """A disk as the medium knows it. `location` is the driver's own key for it, unique in the repository."""

    uuid: str
    location: str
    virtual_size: int
    physical_utilisation: int
    read_only: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Repository:
    """One attached repository: its uuid and the PBD's device_config."""

    uuid: str
    device_config: dict[str, str]
    sm_config: dict[str, str] = field(default_factory=dict)


class StorageDriver(Protocol):
    """One kind of repository. All sizes are bytes; a virtual size may be rounded up by the driver."""

    def info(self) -> DriverInfo:
        """Name, capabilities and configuration keys."""
        ...

    async def create(self, repository: Repository, size: int) -> None:
        """Prepare an empty medium. Raises `StorageError` when it is missing or in use."""
        ...

    async def attach(self, repository: Repository) -> None:
        """Make the repository usable on this host; doing it twice is no error."""
        ...

    async def detach(self, repository: Repository) -> None:
        """Let go of it; doing it twice is no error."""
        ...

    async def destroy(self, repository: Repository) -> None:
        """Erase what `create` made."""
        ...

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        """Every disk on the medium, hidden parents left out."""
        ...

    async def size(self, repository: Repository) -> RepositorySize:
        """The medium's sizes, true at this moment."""
        ...

    async def create_disk(self, repository: Repository, uuid: str, virtual_size: int) -> DiskInfo:
        """Make an empty disk (reads as zeros)."""
        ...

    async def create_image(self, repository: Repository, uuid: str) -> DiskInfo:
        """Make an empty file for a stream that a hypervisor writes (a machine's memory), listed among the disks.

        Its location is its uuid. `source` gives it as a raw file; its virtual size is what has been written so far. It
        can be copied from, updated and destroyed as a disk can, but not cloned, snapshotted or resized
        (`StorageError` 144).
        """
        ...

    async def destroy_disk(self, repository: Repository, location: str) -> None:
        """Remove a disk and whatever hidden parents only it used. A disk that is gone is no error."""
        ...

    async def clone_disk(self, repository: Repository, location: str, uuid: str) -> DiskInfo:
        """A writable copy that shares unchanged blocks; the source stays writable and keeps its location.

        The source must not be in use by a domain.
        """
        ...

    async def snapshot_disk(
        self, repository: Repository, location: str, uuid: str, switch: Callable[[DiskSource], Awaitable[None]] | None
    ) -> DiskInfo:
        """A copy of the disk as it is now, cheaply; the source goes on under its location.

        When a running domain has the disk open, `switch` moves it to the new writable layer; it is awaited once, at
        the moment from which writes go to that layer. If it fails nothing has changed. The file that it is given may
        get another name afterwards: whoever has it open keeps it open and does not look for it again by that name.
        """
        ...

    async def copy_disk(
        self,
        source: DiskSource,
        repository: Repository,
        uuid: str,
        virtual_size: int,
        progress: Progress,
    ) -> DiskInfo:
        """A full, sparse copy from any disk that is not being written. Cancelling the call removes the copy."""
        ...

    async def resize_disk(self, repository: Repository, location: str, virtual_size: int) -> DiskInfo:
        """Grow a disk that is not in use. Shrinking raises `StorageError` 79."""
        ...

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        """The disk's present sizes."""
        ...

    async def source(self, repository: Repository, location: str) -> DiskSource:
        """Where a hypervisor finds the disk's content."""
        ...
