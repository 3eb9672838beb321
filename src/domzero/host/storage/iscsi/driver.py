"""Repositories of type `iscsi`: a target's logical units are the disks. None is made, grown or removed here.

Neither the kernel nor a daemon takes part: domzero looks at the target itself, and QEMU opens the units by libiscsi.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from uuid import UUID, uuid5

from domzero.host.hypervisor.spec import DiskFormat, DiskSource, RemoteImage
from domzero.host.storage import numbers
from domzero.host.storage.iscsi.scsi import Unit
from domzero.host.storage.iscsi.session import PATIENCE, discover, survey
from domzero.host.storage.iscsi.settings import IscsiSettings, named, read_settings
from domzero.host.storage.menus import target_menu
from domzero.host.storage.protocol import (
    DiskInfo,
    DriverInfo,
    ProbedRepository,
    Repository,
    RepositorySize,
    StorageError,
)
from domzero.host.storage.refusals import Refusals

INFO = DriverInfo(
    type="iscsi",
    name="iSCSI, a unit a disk",
    description="The logical units of an iSCSI target are the disks; what there is is decided on the target",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=("SR_PROBE", "SR_UPDATE", "VDI_INTRODUCE", "VDI_ATTACH", "VDI_DETACH", "VDI_UPDATE"),
    configuration={
        "target": "name or address of the host of the target",
        "port": "its TCP port (3260)",
        "targetIQN": "the target's name",
        "localIQN": "the name that this host calls itself, in place of its usual one",
        "chapuser": "CHAP name, where the target wants one",
        "chappassword": "CHAP password",
    },
)


class IscsiStorage(Refusals):
    """Implements `StorageDriver`. `initiator` is this host's iSCSI name; `patience` bounds each visit, in seconds.

    A disk's location is its SCSI id, which stays when the target numbers its units anew; where several units claim
    the same, or none has one, the number tells them apart.
    """

    refusal = "what disks there are is decided on the iSCSI target"

    def __init__(self, initiator: str, patience: float = PATIENCE) -> None:
        self._initiator = initiator
        self._patience = patience
        self._attached: dict[str, IscsiSettings] = {}

    def info(self) -> DriverInfo:
        return INFO

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:  # noqa: ARG002
        """No repository is written on a target, so none is found; a target that answers is one that can be used."""
        settings = read_settings(device_config, self._initiator)
        if not settings.iqn:
            targets = await discover(settings, self._patience)
            raise StorageError(numbers.TARGET_IQN_MISSING, "device_config has no targetIQN", target_menu(targets))
        await survey(settings, self._patience)
        return []

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - the target has the size it has
        await self._survey(self._settings(repository))

    async def attach(self, repository: Repository) -> None:
        settings = self._settings(repository)
        await self._survey(settings)
        self._attached[repository.uuid] = settings

    async def detach(self, repository: Repository) -> None:
        self._attached.pop(repository.uuid, None)

    async def destroy(self, repository: Repository) -> None:
        """Forgets the repository; the units are not ours to erase."""
        await self.detach(repository)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        units = await self._survey(self._present(repository))
        return [_disk_info(repository, location, unit) for location, unit in units.items()]

    async def size(self, repository: Repository) -> RepositorySize:
        """All units together: the repository cannot be filled."""
        total = sum(unit.size for unit in (await self._survey(self._present(repository))).values())
        return RepositorySize(total, total, total)

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        return _disk_info(repository, location, await self._unit(repository, location))

    async def source(self, repository: Repository, location: str) -> DiskSource:
        unit = await self._unit(repository, location)
        return DiskSource(_image(self._present(repository), unit.lun), DiskFormat.RAW)

    def _settings(self, repository: Repository) -> IscsiSettings:
        return named(read_settings(repository.device_config, self._initiator))

    def _present(self, repository: Repository) -> IscsiSettings:
        settings = self._attached.get(repository.uuid)
        if settings is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        return settings

    async def _survey(self, settings: IscsiSettings) -> dict[str, Unit]:
        return _located(await survey(settings, self._patience))

    async def _unit(self, repository: Repository, location: str) -> Unit:
        unit = (await self._survey(self._present(repository))).get(location)
        if unit is None:
            raise StorageError(numbers.DISK_MISSING, f"the target has no disk {location!r}")
        return unit


def _located(units: list[Unit]) -> dict[str, Unit]:
    """Units by location."""
    claimed = Counter(unit.scsi_id for unit in units)
    found = {}
    for unit in units:
        alone = unit.scsi_id and claimed[unit.scsi_id] == 1
        found[unit.scsi_id if alone else f"{unit.scsi_id}-lun-{unit.lun}".lstrip("-")] = unit
    return found


def _disk_info(repository: Repository, location: str, unit: Unit) -> DiskInfo:
    return DiskInfo(
        uuid=str(uuid5(UUID(repository.uuid), location)),
        location=location,
        virtual_size=unit.size,
        physical_utilisation=unit.size,
        read_only=unit.read_only,
        name=f"{unit.vendor} {unit.model}".strip(),
        sm_config={"SCSIid": unit.scsi_id, "LUNid": str(unit.lun)},
        xenstore_data=unit.pages(),
    )


def _image(settings: IscsiSettings, lun: int) -> RemoteImage:
    options: tuple[tuple[str, str | int | bool], ...] = (
        ("transport", "tcp"),
        ("portal", str(settings.portal)),
        ("target", settings.iqn),
        ("lun", lun),
        ("initiator-name", settings.initiator),
    )
    if settings.chap is None:
        return RemoteImage("iscsi", options)
    return RemoteImage("iscsi", (*options, ("user", settings.chap.user)), "password-secret", settings.chap.password)
