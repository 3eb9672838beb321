"""The contract between the toolstack and a storage driver.

A *repository* holds *disks*. A driver works on one kind of repository; it gets plain configuration, keeps no state of
its own beyond the medium, and can be called again after a crash: each method either did nothing, or did all, or
leaves what `scan` and a second call can put right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from domzero.host.hypervisor.spec import DiskSource, LayerPull

Progress = Callable[[float], None]
"""Called with a fraction from 0 to 1 as work goes on."""

NOTHING: Mapping[str, str] = MappingProxyType({})


class StorageError(Exception):
    """The medium could not do it. `number` is XenServer's SM error number (SR_BACKEND_FAILURE_<number>).

    `menu` is XML that a client can choose from: what there is where the configuration says too little (`menus`).
    """

    def __init__(self, number: int, text: str, menu: str = "") -> None:
        super().__init__(text)
        self.number = number
        self.text = text
        self.menu = menu


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
    holds_images: bool = True
    """Whether `create_image` works, given that disks can be created: where it does not, memory is saved elsewhere."""
    detaches_under_machines: bool = False
    """Whether `detach` leaves running machines what they have open. Else it is not called while they have."""


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
    sm_config: Mapping[str, str] = field(default_factory=dict)
    """What the row's sm_config is to say of the disk, such as its `image-format`; other keys there stay."""
    xenstore_data: Mapping[str, str] = field(default_factory=dict)
    """What a guest's drivers are told of the disk (`scsi/0x12/0x80` and such); other keys there stay."""


@dataclass(frozen=True, slots=True)
class ProbedRepository:
    """A repository found on a medium. Sizes are bytes, 0 where they cannot be told without attaching it."""

    uuid: str
    size: int = 0
    free: int = 0
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Merge:
    """Layers that could be one: `upper` takes over what `lower` holds, whose only child it is, and `lower` goes."""

    upper: str
    lower: str
    disks: tuple[str, ...]
    """The locations of all disks that read through `upper`."""
    cost: int
    """Bytes to copy at most."""


@dataclass(frozen=True, slots=True)
class LiveMerge:
    """How a running domain that has the disks of a merge open is made to do it itself."""

    pull: Callable[[LayerPull, Progress], Awaitable[None]]
    speed: int = 0
    """Bytes a second, 0 for as fast as possible."""


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

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:
        """The repositories found on a medium, which is not changed. Only drivers with SR_PROBE are asked.

        Where the configuration is too vague, raises `StorageError` with the number of what is missing and a `menu` of
        what there is (`xapi.md` 8.3).
        """
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

    async def create_disk(
        self, repository: Repository, uuid: str, virtual_size: int, sm_config: Mapping[str, str] = NOTHING
    ) -> DiskInfo:
        """Make an empty disk (reads as zeros).

        `sm_config` is the caller's; a driver obeys the keys it knows (`image-format`: `qcow2`, `vhd`, `raw`) and raises
        `StorageError` 66 for a value it cannot do.
        """
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

    async def resize_disk(
        self,
        repository: Repository,
        location: str,
        virtual_size: int,
        live: Callable[[int], Awaitable[None]] | None = None,
    ) -> DiskInfo:
        """Grow a disk. Shrinking raises `StorageError` 79.

        A disk that a domain has open for writing is grown with `live` (only drivers with VDI_RESIZE_ONLINE are asked):
        awaited once with the new size when the medium has room for it, it makes the domain see the size, and grows the
        image where the format has a size of its own.
        """
        ...

    async def merges(self, repository: Repository) -> list[Merge]:
        """What could be merged now, the most useful first. Empty for a driver whose disks share no layers."""
        ...

    async def merge(self, repository: Repository, merge: Merge, progress: Progress, live: LiveMerge | None) -> None:
        """Carry out one of `merges`; what does not hold any more (its layers changed) is left alone without an error.

        With `live` exactly one running domain has one of the disks open, and `live.pull` is awaited once to do the
        copying in there; without, no domain has any of them open. Without `live`, a call of `source` for one of the
        disks ends the merge early and in order, so that a machine need not wait. Cancelling, failing and killing are
        harmless at every moment: the disks' content never changes, and the next `scan` removes what is left over.
        """
        ...

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        """The disk's present sizes."""
        ...

    async def source(self, repository: Repository, location: str) -> DiskSource:
        """Where a hypervisor finds the disk's content."""
        ...
