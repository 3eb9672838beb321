"""VDIs: virtual disks as clients see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.storage.protocol import StorageError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.storage.repositories import assert_uuid, attached, measured


@implements("VDI.create")
async def create(stack: Stack, context: Context, args: Mapping[str, Any]) -> Ref:
    """A new empty disk. Raises SR_OPERATION_NOT_SUPPORTED where disks cannot be made, SR_BACKEND_FAILURE_*."""
    fields = dict(args)
    sr = fields.pop("SR")
    async with stack.gates["SR"].operation(context, sr, "vdi_create"):
        return await disks.create_vdi(stack, sr, **fields)


@implements("VDI.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Delete a disk that nothing uses, with its data. Drives of halted machines that held it go as well."""
    sr = stack.database.get("VDI", self, "SR")
    async with (
        stack.gates["VDI"].operation(context, self, "destroy"),
        stack.gates["SR"].operation(context, sr, "vdi_destroy"),
    ):
        await disks.destroy_vdi(stack, self)


@implements("VDI.clone")
async def clone(stack: Stack, context: Context, vdi: Ref, driver_params: dict[str, str]) -> Ref:
    """A writable disk with the same content in the same repository, quickly where the driver can share blocks."""
    sr = stack.database.get("VDI", vdi, "SR")
    operation = "vdi_clone" if disks.supports(stack, sr, "VDI_CLONE") else "vdi_create"
    async with (
        stack.gates["VDI"].operation(context, vdi, "clone"),
        stack.gates["SR"].operation(context, sr, operation),
        _turn_of_writer(stack, vdi),
    ):
        return await disks.clone_vdi(stack, vdi)


@implements("VDI.snapshot")
async def snapshot(stack: Stack, context: Context, vdi: Ref, driver_params: dict[str, str]) -> Ref:
    """The disk as it is at this moment, whether a machine uses it or not."""
    sr = stack.database.get("VDI", vdi, "SR")
    async with (
        stack.gates["VDI"].operation(context, vdi, "snapshot"),
        stack.gates["SR"].operation(context, sr, "vdi_snapshot"),
        _turn_of_writer(stack, vdi),
    ):
        return await disks.snapshot_vdi(stack, vdi)


@implements("VDI.copy")
async def copy(stack: Stack, context: Context, vdi: Ref, sr: Ref, base_vdi: Ref, into_vdi: Ref) -> Ref:
    """A full copy in any repository. The task shows progress; cancelling it leaves nothing behind.

    Copies of differences (`base_vdi`) and into existing disks (`into_vdi`) are not supported by any driver:
    SR_OPERATION_NOT_SUPPORTED.
    """
    if NULL_REF not in (base_vdi, into_vdi) or base_vdi != into_vdi:
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", stack.database.get("VDI", vdi, "SR"))
    async with (
        stack.gates["VDI"].operation(context, vdi, "copy"),
        stack.gates["SR"].operation(context, sr, "vdi_create"),
    ):
        with context.task.cancellable():
            return await disks.copy_vdi(stack, vdi, sr, context.task.set_progress)


@implements("VDI.resize")
async def resize(stack: Stack, context: Context, vdi: Ref, size: int) -> None:
    """Grow a disk that is not in use. Raises VDI_TOO_SMALL [vdi, present size] for a size below the present one."""
    await _resize(stack, context, vdi, size, "resize")


@implements("VDI.resize_online")
async def resize_online(stack: Stack, context: Context, vdi: Ref, size: int) -> None:
    """Grow a disk, before the eyes of the one running machine that writes to it.

    Raises SR_OPERATION_NOT_SUPPORTED where the driver cannot do that to a disk in use, VDI_IN_USE where several drives
    have it.
    """
    await _resize(stack, context, vdi, size, "resize_online")


async def _resize(stack: Stack, context: Context, vdi: Ref, size: int, operation: str) -> None:
    record = stack.database.record("VDI", vdi)
    async with (
        stack.gates["VDI"].operation(context, vdi, operation),
        stack.gates["SR"].operation(context, record["SR"], "vdi_resize"),
        _turn_of_writer(stack, vdi),
    ):
        present = stack.database.get("VDI", vdi, "virtual_size")
        if size < present:
            raise ApiError("VDI_TOO_SMALL", vdi, str(present))
        await disks.resize_vdi(stack, vdi, size)


@implements("VDI.update")
async def update(stack: Stack, context: Context, vdi: Ref) -> None:
    """Read the disk's sizes from the medium again."""
    async with stack.gates["VDI"].operation(context, vdi, "update"):
        await disks.update_vdi(stack, vdi)


@implements("VDI.forget")
async def forget(stack: Stack, context: Context, vdi: Ref) -> None:
    """Drop the row and keep the data; a scan of the repository brings the disk back."""
    async with stack.gates["VDI"].operation(context, vdi, "forget"):
        sr = stack.database.get("VDI", vdi, "SR")
        disks.forget_vdi(stack, vdi)
        stack.gates["SR"].refresh(sr)


@implements("VDI.introduce")
async def introduce(
    stack: Stack, context: Context, uuid: str, name_label: str, name_description: str, SR: Ref, type: str,
    sharable: bool, read_only: bool, other_config: dict[str, str], location: str, xenstore_data: dict[str, str],
    sm_config: dict[str, str], managed: bool, virtual_size: int, physical_utilisation: int, metadata_of_pool: Ref,
    is_a_snapshot: bool, snapshot_time: str, snapshot_of: Ref,
) -> Ref:  # fmt: skip
    """A row for a disk that is on the medium already. Its sizes are the medium's, whatever the caller says.

    A blank uuid stands for a new one. Raises INVALID_VALUE for what is no uuid, DB_UNIQUENESS_CONSTRAINT_VIOLATION for
    one that is taken, LOCATION_NOT_UNIQUE, VDI_LOCATION_MISSING when there is no such disk. Drivers need no special
    ability: each can tell the sizes of a disk at a location.
    """
    if uuid:
        assert_uuid(uuid)
    driver, repository = attached(stack, SR)
    try:
        found = await driver.update_disk(repository, location)
    except StorageError as error:
        raise ApiError("VDI_LOCATION_MISSING", SR, location) from error
    for known in stack.database.get("SR", SR, "VDIs"):
        if stack.database.get("VDI", known, "location") == location:
            raise ApiError("LOCATION_NOT_UNIQUE", SR, location)
    fields: dict[str, Any] = {
        "uuid": uuid, "name_label": name_label, "name_description": name_description, "SR": SR, "type": type,
        "sharable": sharable, "read_only": read_only or found.read_only, "other_config": other_config,
        "location": location, "xenstore_data": xenstore_data, "sm_config": sm_config, "managed": managed,
        "metadata_of_pool": metadata_of_pool, "is_a_snapshot": is_a_snapshot, "snapshot_time": snapshot_time,
        "snapshot_of": snapshot_of,
    }  # fmt: skip
    fields.update(measured(fields, found))
    with stack.database.transaction() as transaction:
        vdi = transaction.create("VDI", fields)
    disks.refresh_operations(stack, (vdi,))
    return vdi


@implements("VDI.set_name_label")
def set_name_label(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Rename the disk."""
    _set(stack, self, name_label=value)


@implements("VDI.set_name_description")
def set_name_description(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Change the disk's description."""
    _set(stack, self, name_description=value)


@implements("VDI.set_read_only")
def set_read_only(stack: Stack, context: Context, self: Ref, value: bool) -> None:
    """Allow or forbid writing from the next attachment on. Raises VDI_IN_USE while a machine writes to the disk."""
    if value:
        _refuse_while_written(stack, self, "set_read_only")
    _set(stack, self, read_only=value)


@implements("VDI.set_sharable")
def set_sharable(stack: Stack, context: Context, self: Ref, value: bool) -> None:
    """Let several machines write at once, or not any more. Raises VDI_IN_USE to end sharing while several do."""
    drives = [stack.database.record("VBD", vbd) for vbd in stack.database.get("VDI", self, "VBDs")]
    if not value and sum(drive["currently_attached"] for drive in drives) > 1:
        raise ApiError("VDI_IN_USE", self, "set_sharable")
    _set(stack, self, sharable=value)


@implements("VDI.set_on_boot")
async def set_on_boot(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Keep or drop changes at each start. Dropping needs the driver's help: SR_OPERATION_NOT_SUPPORTED without."""
    if value == "persist" and stack.database.get("VDI", self, "on_boot") == value:
        return
    async with stack.gates["VDI"].operation(context, self, "set_on_boot"):
        _set(stack, self, on_boot=value)


@asynccontextmanager
async def _turn_of_writer(stack: Stack, vdi: Ref) -> AsyncIterator[None]:
    """Keep the machine that may write to the disk, if there is one, from starting, stopping or changing meanwhile."""
    writer = disks.writer_of(stack, vdi)
    if writer is None:
        yield
        return
    async with stack.machines.turn(writer.vm):
        yield


def _refuse_while_written(stack: Stack, vdi: Ref, operation: str) -> None:
    for vbd in stack.database.get("VDI", vdi, "VBDs"):
        drive = stack.database.record("VBD", vbd)
        if drive["currently_attached"] and drive["mode"] == "RW":
            raise ApiError("VDI_IN_USE", vdi, operation)


def _set(stack: Stack, vdi: Ref, **fields: Any) -> None:
    with stack.database.transaction() as transaction:
        transaction.update("VDI", vdi, **fields)
    disks.refresh_operations(stack, (vdi,))
    disks.refresh_drives(stack, vdi)
