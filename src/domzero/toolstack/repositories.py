"""What the messages about SRs, PBDs and VDIs share: drivers, attached repositories, errors, scans."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.host.storage.protocol import DiskInfo, Repository, StorageDriver, StorageError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack

Result = TypeVar("Result")
log = logging.getLogger(__name__)


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
    """The documented form of what a driver said: SR_BACKEND_FAILURE_<number> [status, text, menu]."""
    return ApiError(f"SR_BACKEND_FAILURE_{error.number}", "", error.text, error.menu)


async def asking(answer: Awaitable[Result]) -> Result:
    """What a driver answers, its errors in the documented form."""
    try:
        return await answer
    except StorageError as error:
        raise backend_failure(error) from error


async def scan(stack: Stack, sr: Ref, *, alone: bool = True) -> None:
    """Make the VDI rows and the SR's sizes what the medium says. Raises SR_BACKEND_FAILURE_*, and as `attached`.

    The caller keeps others from making disks meanwhile (the SR's gate does, for `scan`), or is not `alone`: then a disk
    without a row may be in somebody's hands, so new ones are only taken in when nobody was at work here.
    """
    driver, repository = attached(stack, sr)
    before = stack.database.generation
    disks = await asking(driver.scan(repository))
    found = stack.database.find("SR", sr)
    if found is None:
        return
    undisturbed = found.generation <= before and not found.record["current_operations"]
    _reconcile(stack.database, sr, disks, before, take_in=alone or undisturbed)
    await refresh_size(stack, sr)


async def refresh_size(stack: Stack, sr: Ref) -> None:
    """Bring the SR's three sizes up to date."""
    driver, repository = attached(stack, sr)
    size = await asking(driver.size(repository))
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


def _reconcile(database: Database, sr: Ref, disks: list[DiskInfo], before: int, *, take_in: bool) -> None:
    """Rows for disks that came, sizes for those that changed, `missing` for those that went.

    `disks` is what there was at some moment after the generation `before`; what has happened to a row since is newer.
    """
    by_location = {database.get("VDI", vdi, "location"): vdi for vdi in database.get("SR", sr, "VDIs")}
    gone = {deletion.uuid for deletion in database.changes.deleted_since(before) if deletion.class_name == "VDI"}
    read_only = database.get("SR", sr, "content_type") == "iso"
    with database.transaction(observed=True) as transaction:
        for disk in disks:
            measured = {"virtual_size": disk.virtual_size, "physical_utilisation": disk.physical_utilisation}
            vdi = by_location.pop(disk.location, None)
            if vdi is not None:
                transaction.update("VDI", vdi, missing=False, **measured)
                continue
            if not take_in or disk.uuid in gone or _is_elsewhere(database, sr, disk):
                continue
            transaction.create(
                "VDI",
                {
                    "uuid": disk.uuid,
                    "name_label": disk.name or disk.location,
                    "SR": sr,
                    "location": disk.location,
                    "type": "user",
                    "read_only": disk.read_only or read_only,
                    "managed": True,
                    **measured,
                },
            )
        for vdi in by_location.values():
            if database.row("VDI", vdi).generation <= before:
                transaction.update("VDI", vdi, missing=True)


def _is_elsewhere(database: Database, sr: Ref, disk: DiskInfo) -> bool:
    """Whether the disk's uuid is one of another repository, of which this one must be a copy."""
    row = database.tables.by_class["VDI"].uuids.get(disk.uuid)
    if row is not None:
        log.warning("disk %s of %s is left out: there is a disk of that uuid in %s", disk.uuid, sr, row.record["SR"])
    return row is not None
