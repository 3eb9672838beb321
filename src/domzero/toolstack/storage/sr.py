"""Storage repositories: made, introduced, scanned, forgotten, erased."""

from __future__ import annotations

from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.idl.types import Ref
from domzero.toolstack.blobs.blob import remove_blobs
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.device_secrets import require_secrets
from domzero.toolstack.storage.disks import forget_vdi
from domzero.toolstack.storage.pbd import plug_pbd
from domzero.toolstack.storage.repositories import (
    asking,
    assert_uuid,
    attached,
    driver_for,
    refresh_size,
    repository_of,
    this_host_pbd,
)
from domzero.toolstack.storage.scanning import scan


@implements("SR.get_supported_types")
def get_supported_types(stack: Stack, context: Context) -> tuple[str, ...]:
    """The types that `SR.create` takes here."""
    return tuple(sorted(stack.storage))


@implements("SR.create")
async def create(
    stack: Stack,
    context: Context,
    host: Ref,
    device_config: dict[str, str],
    physical_size: int,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> Ref:
    """A new repository on a fresh medium, plugged and scanned. On failure neither rows nor medium stay.

    Raises SR_UNKNOWN_DRIVER and SR_BACKEND_FAILURE_*.
    """
    driver = driver_for(stack, type.lower())
    stack.database.row("host", host)
    require_secrets(stack.database, device_config)
    fields = {
        "name_label": name_label,
        "name_description": name_description,
        "type": type.lower(),
        "content_type": content_type or driver.info().content_type,
        "shared": shared,
        "sm_config": sm_config,
        "physical_size": max(physical_size, 0),
    }
    with stack.database.transaction() as transaction:
        sr = transaction.create("SR", fields)
        pbd = transaction.create("PBD", {"host": host, "SR": sr, "device_config": device_config})
    repository = repository_of(stack, sr, pbd)

    async def make_medium() -> None:
        await asking(driver.create(repository, max(physical_size, 0)))

    async def made() -> None:
        await stack.database.durable()

    async with Steps() as steps:
        await steps.do("record the repository", made, lambda: _forget_rows(stack, sr))
        await steps.do("prepare the medium", make_medium, lambda: driver.destroy(repository))
        await steps.do("plug it", lambda: plug_pbd(stack, pbd), lambda: driver.detach(repository))
        await scan(stack, sr)
    stack.gates["SR"].refresh(sr)
    return sr


@implements("SR.make")
def make(
    stack: Stack,
    context: Context,
    host: Ref,
    device_config: dict[str, str],
    physical_size: int,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    sm_config: dict[str, str],
) -> str:
    """Withdrawn before 4.1: always MESSAGE_DEPRECATED. `SR.create` does what it did."""
    raise ApiError("MESSAGE_DEPRECATED")


@implements("SR.introduce")
def introduce(
    stack: Stack,
    context: Context,
    uuid: str,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> Ref:
    """A row for a repository that exists on its medium; PBDs follow. Raises SR_UUID_EXISTS, INVALID_VALUE."""
    driver_for(stack, type.lower())
    assert_uuid(uuid)
    if any(row.record["uuid"] == uuid for row in stack.database.rows("SR").values()):
        raise ApiError("SR_UUID_EXISTS", uuid)
    fields: dict[str, Any] = {
        "uuid": uuid,
        "name_label": name_label,
        "name_description": name_description,
        "type": type.lower(),
        "content_type": content_type,
        "shared": shared,
        "sm_config": sm_config,
        "physical_size": 0,
    }
    with stack.database.transaction() as transaction:
        sr = transaction.create("SR", fields)
    stack.gates["SR"].refresh(sr)
    return sr


@implements("SR.forget")
async def forget(stack: Stack, context: Context, sr: Ref) -> None:
    """Drop the rows of an unplugged repository and its disks; the medium keeps everything."""
    async with stack.gates["SR"].operation(context, sr, "forget"):
        await _forget_rows(stack, sr)


@implements("SR.destroy")
async def destroy(stack: Stack, context: Context, sr: Ref) -> None:
    """Erase an unplugged, empty repository. Raises SR_HAS_PBD, SR_HAS_NO_PBDS, SR_NOT_EMPTY, SR_INDESTRUCTIBLE."""
    async with stack.gates["SR"].operation(context, sr, "destroy"):
        record = stack.database.record("SR", sr)
        pbd = this_host_pbd(stack, sr)
        if pbd is None:
            raise ApiError("SR_HAS_NO_PBDS", sr)
        await asking(driver_for(stack, record["type"]).destroy(repository_of(stack, sr, pbd)))
        await _forget_rows(stack, sr)


@implements("SR.scan")
async def scan_message(stack: Stack, context: Context, sr: Ref) -> None:
    """Look at the medium: new disks appear, changed ones are brought up to date, vanished ones marked missing.

    Calls that come while one is being carried out share the next.
    """

    async def look() -> None:
        async with stack.gates["SR"].operation(context, sr, "scan"):
            await scan(stack, sr)

    stack.database.row("SR", sr)
    await stack.scans.share(sr, look)


@implements("SR.update")
async def update(stack: Stack, context: Context, sr: Ref) -> None:
    """Bring the repository's sizes up to date."""
    async with stack.gates["SR"].operation(context, sr, "update"):
        await refresh_size(stack, sr)


@implements("SR.assert_can_host_ha_statefile")
def assert_can_host_ha_statefile(stack: Stack, context: Context, sr: Ref) -> None:
    """Whether the small disk through which hosts watch each other can be here.

    Raises SR_NOT_ATTACHED, HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED, and SR_OPERATION_NOT_SUPPORTED where the driver
    cannot hand out a disk without a database.
    """
    _require_configuration(stack, sr)
    if not stack.database.get("SR", sr, "shared"):
        raise ApiError("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", sr)


@implements("SR.assert_supports_database_replication")
def assert_supports_database_replication(stack: Stack, context: Context, sr: Ref) -> None:
    """Whether the pool's database can be copied to a disk in here. Raises SR_OPERATION_NOT_SUPPORTED."""
    _require_configuration(stack, sr)


def _require_configuration(stack: Stack, sr: Ref) -> None:
    driver, _ = attached(stack, sr)
    if "VDI_GENERATE_CONFIG" not in driver.info().capabilities:
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", sr)


@implements("SR.set_name_label")
def set_name_label(stack: Stack, context: Context, sr: Ref, value: str) -> None:
    """Rename the repository."""
    with stack.database.transaction() as transaction:
        transaction.update("SR", sr, name_label=value)


@implements("SR.set_name_description")
def set_name_description(stack: Stack, context: Context, sr: Ref, value: str) -> None:
    """Describe the repository anew."""
    with stack.database.transaction() as transaction:
        transaction.update("SR", sr, name_description=value)


@implements("SR.set_shared")
def set_shared(stack: Stack, context: Context, sr: Ref, value: bool) -> None:
    """Say whether several hosts may use the repository. Raises SR_HAS_MULTIPLE_PBDS when several do already."""
    if not value and len(stack.database.get("SR", sr, "PBDs")) > 1:
        raise ApiError("SR_HAS_MULTIPLE_PBDS", sr)
    with stack.database.transaction() as transaction:
        transaction.update("SR", sr, shared=value)


@implements("SR.set_physical_size")
def set_physical_size(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """Record another size of the medium, in bytes; the next scan measures it again."""
    if value < 0:
        raise ApiError("INVALID_VALUE", "physical_size", str(value))
    with stack.database.transaction() as transaction:
        transaction.update("SR", self, physical_size=value)


async def _forget_rows(stack: Stack, sr: Ref) -> None:
    record = stack.database.record("SR", sr)
    with stack.database.transaction() as transaction:
        for vdi in record["VDIs"]:
            forget_vdi(stack, vdi)
        for pbd in record["PBDs"]:
            transaction.destroy("PBD", pbd)
        remove_blobs(stack, transaction, record["blobs"])
        transaction.destroy("SR", sr)
