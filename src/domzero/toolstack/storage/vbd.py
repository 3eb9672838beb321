"""VBDs: the drives of machines, and the disks and media in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.host.hypervisor.spec import DiskSource, DiskSpec
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.figures import device_at_rest
from domzero.toolstack.hotplug import attaching, detaching
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.storage.disk_limits import SUPPORTED, limits_of
from domzero.toolstack.storage.vbd_admission import disk_refusal
from domzero.toolstack.vm.device_names import choose_vbd_position, drive_name, parse_vbd_position
from domzero.toolstack.vm.specification import disk_spec

REMOVABLE = ("CD", "Floppy")


@implements("VBD.create")
def create(stack: Stack, context: Context, args: Mapping[str, Any]) -> Ref:
    """A new drive, not attached to anything yet.

    Raises INVALID_DEVICE and DEVICE_ALREADY_EXISTS for its position, VBD_CDS_MUST_BE_READONLY, VBD_NOT_REMOVABLE_MEDIA
    for an empty hard disk, VDI_IS_NOT_ISO, VDI_READONLY, VDI_NOT_MANAGED, VDI_INCOMPATIBLE_TYPE for saved memory,
    INVALID_VALUE for limits that make no sense.
    """
    stack.database.row("VM", args["VM"])
    limits_of(args["qos_algorithm_type"], args["qos_algorithm_params"])
    vbd = add_drive(stack, {**args, "empty": _is_empty(stack, args)})
    refresh(stack, vbd)
    return vbd


def add_drive(stack: Stack, fields: Mapping[str, Any]) -> Ref:
    """A drive's row and the row of its figures, at the first position free when that is `autodetect`."""
    database = stack.database
    position = choose_vbd_position(fields["userdevice"], taken_positions(stack, fields["VM"]))
    with database.transaction() as transaction:
        return transaction.create(
            "VBD",
            {
                **fields,
                "userdevice": position,
                "device": "",
                "currently_attached": False,
                "qos_supported_algorithms": SUPPORTED,
                "metrics": transaction.create("VBD_metrics", {}),
            },
        )


def taken_positions(stack: Stack, vm: Ref, *, besides: Ref = NULL_REF) -> list[int | None]:
    """The positions of the machine's drives, `besides` left out."""
    vbds = stack.database.get("VM", vm, "VBDs")
    return [parse_vbd_position(stack.database.get("VBD", vbd, "userdevice")) for vbd in vbds if vbd != besides]


def _is_empty(stack: Stack, args: Mapping[str, Any]) -> bool:
    """Whether the new drive has no medium, after a look at whether it may have this one."""
    if args["type"] == "CD" and args["mode"] == "RW":
        raise ApiError("VBD_CDS_MUST_BE_READONLY")
    if args["empty"] or args["VDI"] == NULL_REF:
        if args["type"] not in REMOVABLE:
            raise ApiError("VBD_NOT_REMOVABLE_MEDIA", NULL_REF)
        return True
    _check_medium(stack, args["VDI"], args["type"])
    if args["mode"] == "RW" and stack.database.get("VDI", args["VDI"], "read_only"):
        raise ApiError("VDI_READONLY", args["VDI"])
    return False


def _check_medium(stack: Stack, vdi: Ref, type: str) -> None:
    disk = stack.database.record("VDI", vdi)
    if not disk["managed"]:
        raise ApiError("VDI_NOT_MANAGED", vdi)
    if disk["type"] == "suspend":
        # Hypervisors trust saved memory, and it holds another guest's secrets.
        raise ApiError("VDI_INCOMPATIBLE_TYPE", vdi, disk["type"])
    if type == "CD":
        content = stack.database.get("SR", disk["SR"], "content_type")
        if content != "iso":
            raise ApiError("VDI_IS_NOT_ISO", vdi, content)


@implements("VBD.destroy")
def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Remove a drive that is not attached, else OPERATION_NOT_ALLOWED. The disk in it stays."""
    record = stack.database.record("VBD", self)
    if record["currently_attached"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "The drive is attached; unplug it or shut the machine down first.")
    if record["current_operations"]:
        task, running = next(iter(record["current_operations"].items()))
        raise ApiError("OTHER_OPERATION_IN_PROGRESS", "VBD", self, running, task)
    disks.remove_drive(stack, self)
    disks.refresh_operations(stack, (record["VDI"],))


@implements("VBD.plug")
async def plug(stack: Stack, context: Context, self: Ref) -> None:
    """Put the drive into its running machine."""
    async with _operation(stack, context, self, "plug"):
        vm = stack.database.get("VBD", self, "VM")
        async with stack.machines.running(vm) as domain, Steps() as steps:
            spec = await _spec(stack, self)
            await steps.do(
                "plug the disk",
                lambda: attaching(vm, "VBD", self, stack.hypervisor.plug_disk(domain.domid, spec)),
                lambda: stack.hypervisor.unplug_disk(domain.domid, spec.slot, force=True),
            )
            await steps.do("record that it is in", lambda: _observe(stack, self, attached=True))


async def _spec(stack: Stack, vbd: Ref) -> DiskSpec:
    """The drive as the hypervisor is told of it."""
    record = stack.database.record("VBD", vbd)
    source = await disks.disk_source(stack, record["VDI"])
    return disk_spec(record, source, disk_read_only=stack.database.get("VDI", record["VDI"], "read_only"))


@implements("VBD.unplug")
async def unplug(stack: Stack, context: Context, self: Ref) -> None:
    """Take the drive out when the guest agrees. Raises DEVICE_DETACH_TIMEOUT or DEVICE_DETACH_REJECTED otherwise."""
    await _unplug(stack, context, self, force=False)


@implements("VBD.unplug_force")
async def unplug_force(stack: Stack, context: Context, self: Ref) -> None:
    """Take the drive out whatever the guest says."""
    await _unplug(stack, context, self, force=True)


async def _unplug(stack: Stack, context: Context, vbd: Ref, *, force: bool) -> None:
    async with _operation(stack, context, vbd, "unplug_force" if force else "unplug"):
        record = stack.database.record("VBD", vbd)
        await stack.merges.leave(record["VDI"])
        async with stack.machines.running(record["VM"]) as domain:
            slot = int(record["userdevice"])
            out = stack.hypervisor.unplug_disk(domain.domid, slot, force=force)
            await detaching(record["VM"], "VBD", vbd, out)
            _observe(stack, vbd, attached=False)


@implements("VBD.insert")
async def insert(stack: Stack, context: Context, vbd: Ref, vdi: Ref) -> None:
    """Put a CD image into an empty drive, at once where the machine runs."""
    stack.database.row("VDI", vdi)
    async with _operation(stack, context, vbd, "insert"):
        _check_medium(stack, vdi, stack.database.get("VBD", vbd, "type"))
        refusal = disk_refusal(stack.database, vbd, vdi, "insert")
        if refusal is not None:
            raise refusal
        await _change_medium(stack, vbd, vdi, await disks.disk_source(stack, vdi))


@implements("VBD.eject")
async def eject(stack: Stack, context: Context, vbd: Ref) -> None:
    """Take the medium out and leave the drive empty."""
    async with _operation(stack, context, vbd, "eject"):
        vdi = stack.database.get("VBD", vbd, "VDI")
        await _change_medium(stack, vbd, NULL_REF, None)
    disks.refresh_operations(stack, (vdi,))
    disks.refresh_sharers(stack, vdi)


async def _change_medium(stack: Stack, vbd: Ref, vdi: Ref, source: DiskSource | None) -> None:
    """Change what is in the drive, in the guest too if it sees the drive."""
    record = stack.database.record("VBD", vbd)
    async with stack.machines.turn(record["VM"]) as machine:
        alive = stack.database.get("VM", record["VM"], "power_state") in ("Running", "Paused")
        seen = record["type"] == "CD" and stack.database.get("VBD", vbd, "currently_attached")
        if alive and seen:
            domid = stack.machines.living(machine).domid
            changed = stack.hypervisor.change_medium(domid, int(record["userdevice"]), source)
            await attaching(record["VM"], "VBD", vbd, changed)
        with stack.database.transaction(observed=alive) as transaction:
            transaction.update("VBD", vbd, VDI=vdi, empty=vdi == NULL_REF)


@implements("VBD.assert_attachable")
def assert_attachable(stack: Stack, context: Context, self: Ref) -> None:
    """Raises what would keep the drive from being attached now."""
    stack.gates["VBD"].assert_allowed(self, "attach")


@implements("VBD.set_mode")
def set_mode(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Choose read-only or read-write for the next start. Raises VM_BAD_POWER_STATE unless the machine is halted."""
    record = stack.database.record("VBD", self)
    state = stack.database.get("VM", record["VM"], "power_state")
    if state != "Halted":
        raise ApiError("VM_BAD_POWER_STATE", record["VM"], "halted", state.lower())
    if value == "RW" and record["type"] == "CD":
        raise ApiError("VBD_CDS_MUST_BE_READONLY")
    if value == "RW" and record["VDI"] != NULL_REF and stack.database.get("VDI", record["VDI"], "read_only"):
        raise ApiError("VDI_READONLY", record["VDI"])
    _set(stack, self, mode=value)


@implements("VBD.set_userdevice")
def set_userdevice(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Move a drive that is not attached to another free position; names and positions as at creation."""
    record = stack.database.record("VBD", self)
    if record["currently_attached"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "The drive is attached; it keeps its position until it is not.")
    taken = taken_positions(stack, record["VM"], besides=self)
    _set(stack, self, userdevice=choose_vbd_position(value, taken))


@implements("VBD.set_unpluggable")
def set_unpluggable(stack: Stack, context: Context, self: Ref, value: bool) -> None:
    """Allow or forbid taking the drive out of a running machine."""
    _set(stack, self, unpluggable=value)


@implements("VBD.set_type")
def set_type(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Change what the drive is to the guest; not while it is attached, and not into what its medium does not allow."""
    record = stack.database.record("VBD", self)
    if record["currently_attached"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "The drive is attached; its type can be changed when it is not.")
    if value == "CD" and record["mode"] == "RW":
        raise ApiError("VBD_CDS_MUST_BE_READONLY")
    if value not in REMOVABLE and record["empty"]:
        raise ApiError("VBD_NOT_REMOVABLE_MEDIA", self)
    if record["VDI"] != NULL_REF:
        _check_medium(stack, record["VDI"], value)
    _set(stack, self, type=value)


def _observe(stack: Stack, vbd: Ref, *, attached: bool) -> None:
    """Record what the hypervisor has done."""
    position = int(stack.database.get("VBD", vbd, "userdevice"))
    with stack.database.transaction(observed=True) as transaction:
        device = drive_name(position) if attached else ""
        transaction.update("VBD", vbd, currently_attached=attached, device=device, status_code=0, status_detail="")
        if not attached:
            device_at_rest(stack, transaction, "VBD", vbd)


def _set(stack: Stack, vbd: Ref, **fields: Any) -> None:
    with stack.database.transaction() as transaction:
        transaction.update("VBD", vbd, **fields)
    refresh(stack, vbd)


@asynccontextmanager
async def _operation(stack: Stack, context: Context, vbd: Ref, name: str) -> AsyncIterator[None]:
    """The drive's gate; the disk in it learns of beginning and end, since it waits for its drives."""
    try:
        async with stack.gates["VBD"].operation(context, vbd, name):
            disks.refresh_operations(stack, (stack.database.get("VBD", vbd, "VDI"),))
            yield
    finally:
        if stack.database.find("VBD", vbd) is not None:
            refresh(stack, vbd)


def refresh(stack: Stack, vbd: Ref) -> None:
    """Compute anew what the drive, the disk in it and that disk's other drives allow."""
    vdi = stack.database.get("VBD", vbd, "VDI")
    stack.gates["VBD"].refresh(vbd)
    disks.refresh_sharers(stack, vdi)
    disks.refresh_operations(stack, (vdi,))
