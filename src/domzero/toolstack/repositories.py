"""What the messages about SRs, PBDs and VDIs share: drivers, attached repositories, errors, scans."""

from __future__ import annotations

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.host.storage.protocol import DiskInfo, Repository, StorageDriver, StorageError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack


def driver_for(stack: Stack, type: str) -> StorageDriver:
    """The driver of an SR type. Raises SR_UNKNOWN_DRIVER."""
    try:
        return stack.storage[type]
    except KeyError:
        raise ApiError("SR_UNKNOWN_DRIVER", type) from None


def this_host_pbd(stack: Stack, sr: Ref) -> Ref | None:
    """The PBD that connects this host to the repository, if there is one."""
    database = stack.database
    return next((pbd for pbd in database.get("SR", sr, "PBDs") if database.get("PBD", pbd, "host") == stack.host), None)


def repository_of(stack: Stack, sr: Ref, pbd: Ref) -> Repository:
    """What a driver needs to know of a repository."""
    record = stack.database.record("SR", sr)
    return Repository(record["uuid"], stack.database.get("PBD", pbd, "device_config"), record["sm_config"])


def attached(stack: Stack, sr: Ref) -> tuple[StorageDriver, Repository]:
    """Driver and repository of an SR that is plugged here. Raises SR_HAS_NO_PBDS or SR_NOT_ATTACHED."""
    record = stack.database.record("SR", sr)
    pbd = this_host_pbd(stack, sr)
    if pbd is None:
        raise ApiError("SR_HAS_NO_PBDS", sr)
    if not stack.database.get("PBD", pbd, "currently_attached"):
        raise ApiError("SR_NOT_ATTACHED", sr)
    return driver_for(stack, record["type"]), repository_of(stack, sr, pbd)


def backend_failure(error: StorageError) -> ApiError:
    """The documented form of what a driver said: SR_BACKEND_FAILURE_<number> [status, text, more]."""
    return ApiError(f"SR_BACKEND_FAILURE_{error.number}", "", error.text, "")


async def scan(stack: Stack, sr: Ref) -> None:
    """Make the VDI rows and the SR's sizes what the medium says. Raises SR_BACKEND_FAILURE_*, and as `attached`."""
    driver, repository = attached(stack, sr)
    try:
        disks = await driver.scan(repository)
    except StorageError as error:
        raise backend_failure(error) from error
    _reconcile(stack.database, sr, disks, content_type=stack.database.get("SR", sr, "content_type"))
    await refresh_size(stack, sr)


async def refresh_size(stack: Stack, sr: Ref) -> None:
    """Bring the SR's three sizes up to date."""
    driver, repository = attached(stack, sr)
    try:
        size = await driver.size(repository)
    except StorageError as error:
        raise backend_failure(error) from error
    if stack.database.find("SR", sr) is None:
        return
    with stack.database.transaction(observed=True) as transaction:
        transaction.update(
            "SR",
            sr,
            physical_size=size.physical_size,
            physical_utilisation=size.physical_utilisation,
            virtual_allocation=size.virtual_allocation,
        )


def _reconcile(database: Database, sr: Ref, disks: list[DiskInfo], content_type: str) -> None:
    """Rows for disks that came, sizes for those that changed, `missing` for those that went."""
    by_location = {database.get("VDI", vdi, "location"): vdi for vdi in database.get("SR", sr, "VDIs")}
    with database.transaction(observed=True) as transaction:
        for disk in disks:
            measured = {"virtual_size": disk.virtual_size, "physical_utilisation": disk.physical_utilisation}
            vdi = by_location.pop(disk.location, None)
            if vdi is not None:
                transaction.update("VDI", vdi, missing=False, **measured)
                continue
            transaction.create(
                "VDI",
                {
                    "uuid": disk.uuid,
                    "name_label": disk.name or disk.location,
                    "SR": sr,
                    "location": disk.location,
                    "type": "user",
                    "read_only": disk.read_only or content_type == "iso",
                    "managed": True,
                    **measured,
                },
            )
        for vdi in by_location.values():
            transaction.update("VDI", vdi, missing=True)
