"""Repositories of type `file`: a directory of this host that is there already, or is made beside others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

from domzero.host.storage import numbers
from domzero.host.storage.files.directory import DirectoryStorage
from domzero.host.storage.files.place import Ownership, Step, location_of
from domzero.host.storage.protocol import DriverInfo, ProbedRepository, Repository, StorageError
from domzero.host.storage.worker import PATIENCE

CAPABILITIES = (
    "SR_UPDATE",
    "THIN_PROVISIONING",
    "VDI_ATTACH",
    "VDI_CLONE",
    "VDI_CREATE",
    "VDI_DELETE",
    "VDI_DETACH",
    "VDI_INTRODUCE",
    "VDI_RESIZE",
    "VDI_RESIZE_ONLINE",
    "VDI_SNAPSHOT",
    "VDI_UPDATE",
)
"""What every repository that is a directory can do."""

INFO = DriverInfo(
    type="file",
    name="Directory of disk images",
    description="Disks are files in a local directory (qcow2, VHD or raw); clones and snapshots share what they can",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=CAPABILITIES,
    configuration={"location": "absolute path of the directory"},
    detaches_under_machines=True,
)


class DirectoryMedium:
    """Implements `Medium`: nothing is to be done."""

    patience = PATIENCE
    shared = False
    mode = 0o600
    whole = False

    def info(self) -> DriverInfo:
        return INFO

    async def probe(
        self,
        device_config: Mapping[str, str],  # noqa: ARG002 - always refused
        sm_config: Mapping[str, str],  # noqa: ARG002
    ) -> list[ProbedRepository]:
        raise StorageError(numbers.NOT_IMPLEMENTED, "directories are not probed")

    async def create(self, repository: Repository) -> None:
        location_of(repository)

    async def attach(self, repository: Repository) -> Path:
        return location_of(repository)

    async def detach(self, repository: Repository) -> None:
        """Nothing was attached."""

    async def erase(self, repository: Repository) -> None:
        """The driver has removed what was its own."""


class FileStorage(DirectoryStorage):
    """Implements `StorageDriver`; see `DirectoryStorage`."""

    def __init__(
        self,
        *,
        owner: Ownership | None = None,
        step: Step = lambda _: None,
        new_uuid: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        super().__init__(DirectoryMedium(), owner=owner, step=step, new_uuid=new_uuid)
