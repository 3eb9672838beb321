"""Repositories of type `udev`: the host's own CD drives, or its removable disks. What is plugged in is listed.

A disk that the host itself uses (mounted, swapped to, part of a volume group or array) is not listed: two writers would
destroy it, and its content is nobody else's business.
"""

from __future__ import annotations

from uuid import UUID, uuid5

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.protocol import (
    DiskInfo,
    DriverInfo,
    Repository,
    RepositorySize,
    StorageError,
)
from domzero.host.storage.refusals import Refusals
from domzero.host.storage.udev.devices import Device, Host, Kind, find_devices, is_in_use
from domzero.host.storage.worker import Workers

CD_DRIVES = "/dev/xapi/cd"
REMOVABLE_DISKS = "/dev/xapi/block"
KINDS = {CD_DRIVES: Kind.CD, REMOVABLE_DISKS: Kind.DISK}
PATIENCE = 30.0
"""Seconds that the kernel may take over all drives; one with a bad disc can take long."""

INFO = DriverInfo(
    type="udev",
    name="Drives of this host",
    description="The CD drives or the removable disks that are plugged into the host",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=("SR_UPDATE", "VDI_INTRODUCE", "VDI_ATTACH", "VDI_DETACH", "VDI_UPDATE"),
    configuration={"location": f"{CD_DRIVES} for CD drives, {REMOVABLE_DISKS} for removable disks"},
)


class UdevStorage(Refusals):
    """Implements `StorageDriver`. A disk's location is what the device calls itself, or else where it is plugged in."""

    refusal = "drives are plugged into the host, not made"

    def __init__(self, host: Host | None = None, patience: float = PATIENCE) -> None:
        self._host = host or Host()
        self._patience = patience
        self._attached: dict[str, tuple[Kind, Workers]] = {}

    def info(self) -> DriverInfo:
        return INFO

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - there is what is plugged in
        _kind(repository)

    async def attach(self, repository: Repository) -> None:
        kind = _kind(repository)
        if repository.uuid not in self._attached:
            workers = Workers(f"{kind.value} drives of this host", self._patience)
            await workers.run(find_devices, self._host, kind)
            self._attached[repository.uuid] = (kind, workers)

    async def detach(self, repository: Repository) -> None:
        self._attached.pop(repository.uuid, None)

    async def destroy(self, repository: Repository) -> None:
        await self.detach(repository)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        """Empty CD drives have size 0."""
        return [_disk_info(repository, device) for device in (await self._devices(repository)).values()]

    async def size(self, repository: Repository) -> RepositorySize:
        """All devices together: the repository cannot be filled."""
        total = sum(device.size for device in (await self._devices(repository)).values())
        return RepositorySize(total, total, total)

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        return _disk_info(repository, await self._device(repository, location))

    async def source(self, repository: Repository, location: str) -> DiskSource:
        """Raises `StorageError` 456 for an empty drive, and 24 for a disk that the host has for itself."""
        device = await self._device(repository, location)
        if not device.size:
            raise StorageError(numbers.DRIVE_EMPTY, f"there is no disc in {device.name}")
        kind, workers = self._attached[repository.uuid]
        if kind is Kind.DISK and await workers.run(is_in_use, device.path):
            raise StorageError(numbers.DISK_IN_USE, f"{device.path} is used by the host itself")
        return DiskSource(device.path, DiskFormat.RAW)

    async def _devices(self, repository: Repository) -> dict[str, Device]:
        attached = self._attached.get(repository.uuid)
        if attached is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        kind, workers = attached
        return {device.identity: device for device in await workers.run(find_devices, self._host, kind)}

    async def _device(self, repository: Repository, location: str) -> Device:
        device = (await self._devices(repository)).get(location)
        if device is None:
            raise StorageError(numbers.DISK_MISSING, f"no device {location!r} is plugged in")
        return device


def _kind(repository: Repository) -> Kind:
    location = repository.device_config.get("location", "")
    if location not in KINDS:
        raise StorageError(numbers.LOCATION_MISSING, f"location must be {' or '.join(KINDS)}, not {location!r}")
    return KINDS[location]


def _disk_info(repository: Repository, device: Device) -> DiskInfo:
    return DiskInfo(
        uuid=str(uuid5(UUID(repository.uuid), device.identity)),
        location=device.identity,
        virtual_size=device.size,
        physical_utilisation=device.size,
        read_only=device.read_only,
        name=device.name,
        sm_config={"device": str(device.path)},
    )
