"""Which operation a drive takes now, and whether two drives may share a disk: pure decisions over the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, Ref

LISTED = ("attach", "eject", "insert", "plug", "unplug", "unplug_force")
"""The operations that may appear in `allowed_operations`."""

HOT = frozenset({"plug", "unplug", "unplug_force"})
MEDIUM = frozenset({"insert", "eject"})
STATES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(HOT, ("Running",)),
    **dict.fromkeys(MEDIUM, ("Halted", "Paused", "Running")),
}
"""Operation → the machine's power states in which it is possible; others are possible in all."""

MACHINE_BUSY = frozenset(
    {
        "start", "start_on", "resume", "resume_on", "pause", "suspend", "checkpoint", "snapshot", "revert",
        "clean_shutdown", "hard_shutdown", "clean_reboot", "hard_reboot", "pool_migrate", "migrate_send",
    }
)  # fmt: skip
"""Operations of a machine during which none of its devices is plugged, unplugged or changed."""

NEVER_DISTURBS = frozenset({"copy"})


def check(database: Database, vbd: Ref, operation: str) -> ApiError | None:
    """The first reason why the operation cannot start now, or None."""
    record = database.record("VBD", vbd)
    vm = database.find("VM", record["VM"])
    if vm is None:
        return ApiError("HANDLE_INVALID", "VM", record["VM"])
    return (
        _under_way(vbd, record)
        or machine_state(vm.ref, vm.record, STATES.get(operation))
        or (machine_busy(vm.ref, vm.record) if operation in STATES else None)
        or _kind(vbd, record, operation)
        or _attachment(vbd, record, operation)
        or (disk_refusal(database, vbd, record["VDI"], operation) if operation in ("plug", "attach") else None)
    )


def machine_state(vm: Ref, record: Mapping[str, Any], states: tuple[str, ...] | None) -> ApiError | None:
    """VM_BAD_POWER_STATE unless the machine is in one of these states (None: any); the control domain is in none."""
    if states is None:
        return None
    if record["is_control_domain"]:
        return ApiError("OPERATION_NOT_ALLOWED", "The control domain's devices are the host's own.")
    if record["power_state"] in states:
        return None
    return ApiError("VM_BAD_POWER_STATE", vm, ", ".join(states).lower(), record["power_state"].lower())


def machine_busy(vm: Ref, record: Mapping[str, Any]) -> ApiError | None:
    """OTHER_OPERATION_IN_PROGRESS while the machine starts, stops or is being saved."""
    for task, running in record["current_operations"].items():
        if running in MACHINE_BUSY:
            return ApiError("OTHER_OPERATION_IN_PROGRESS", "VM", vm, running, task)
    return None


def disk_refusal(database: Database, vbd: Ref, vdi: Ref, operation: str) -> ApiError | None:
    """Why the disk cannot be used through this drive now, or None; an empty drive needs none.

    A disk is used by one machine alone, unless it is sharable or all use it read-only. Raises nothing.
    """
    if vdi == NULL_REF:
        return None
    found = database.find("VDI", vdi)
    if found is None:
        return ApiError("HANDLE_INVALID", "VDI", vdi)
    drive, disk = database.record("VBD", vbd), found.record
    if not disk["managed"]:
        return ApiError("VDI_NOT_MANAGED", vdi)
    if disk["missing"]:
        return ApiError("VDI_MISSING", disk["SR"], vdi)
    if disk["read_only"] and drive["mode"] == "RW":
        return ApiError("VDI_READONLY", vdi)
    for task, running in disk["current_operations"].items():
        if not (running in NEVER_DISTURBS and drive["mode"] == "RO"):
            return ApiError("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi, running, task)
    return _sharing(database, vbd, vdi, operation) if is_exclusive(disk) else None


def is_exclusive(disk: Mapping[str, Any]) -> bool:
    """Whether one drive's use of the disk can keep others from it: nobody writes to a read-only one."""
    return not (disk["sharable"] or disk["read_only"])


def _sharing(database: Database, vbd: Ref, vdi: Ref, operation: str) -> ApiError | None:
    """A disk that is being plugged into another machine will be in use, unless that fails."""
    mode = database.get("VBD", vbd, "mode")
    for other in database.get("VDI", vdi, "VBDs"):
        record = database.record("VBD", other)
        if other == vbd or "RW" not in (mode, record["mode"]):
            continue
        if record["currently_attached"]:
            return ApiError("VDI_IN_USE", vdi, operation)
        for task, running in record["current_operations"].items():
            if running == "plug":
                return ApiError("OTHER_OPERATION_IN_PROGRESS", "VBD", other, running, task)
    return None


def _under_way(vbd: Ref, record: Mapping[str, Any]) -> ApiError | None:
    for task, running in record["current_operations"].items():
        return ApiError("OTHER_OPERATION_IN_PROGRESS", "VBD", vbd, running, task)
    return None


def _kind(vbd: Ref, record: Mapping[str, Any], operation: str) -> ApiError | None:
    removable = record["type"] != "Disk"
    if operation in MEDIUM and not removable:
        return ApiError("VBD_NOT_REMOVABLE_MEDIA", vbd)
    if operation in HOT and removable:
        return ApiError("OPERATION_NOT_ALLOWED", "CD drives stay in a running machine; insert and eject their media.")
    if operation in HOT and not record["unpluggable"] and operation != "plug":
        return ApiError("VBD_NOT_UNPLUGGABLE", vbd)
    return None


def _attachment(vbd: Ref, record: Mapping[str, Any], operation: str) -> ApiError | None:
    if operation == "insert" and not record["empty"]:
        return ApiError("VBD_NOT_EMPTY", vbd)
    if operation == "eject" and record["empty"]:
        return ApiError("VBD_IS_EMPTY", vbd)
    if operation in ("plug", "attach") and record["currently_attached"]:
        return ApiError("DEVICE_ALREADY_ATTACHED", vbd)
    if operation in ("unplug", "unplug_force") and not record["currently_attached"]:
        return ApiError("DEVICE_ALREADY_DETACHED", vbd)
    return None
