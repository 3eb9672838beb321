"""Which operation a virtual disk takes now: pure decisions over the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

LISTED = ("snapshot", "clone", "copy", "resize", "resize_online", "destroy", "forget", "update", "set_on_boot")
"""The operations that may appear in `allowed_operations`."""

CAPABILITY: Mapping[str, tuple[str, ...]] = {
    "clone": ("VDI_CLONE", "VDI_CREATE"),
    "snapshot": ("VDI_SNAPSHOT",),
    "resize": ("VDI_RESIZE",),
    "resize_online": ("VDI_RESIZE_ONLINE", "VDI_RESIZE"),
    "destroy": ("VDI_DELETE",),
    "update": ("VDI_UPDATE",),
    "set_on_boot": ("VDI_RESET_ON_BOOT",),
    "generate_config": ("VDI_GENERATE_CONFIG",),
    "enable_cbt": ("VDI_CONFIG_CBT",),
    "disable_cbt": ("VDI_CONFIG_CBT",),
    "data_destroy": ("VDI_CONFIG_CBT",),
    "list_changed_blocks": ("VDI_CONFIG_CBT",),
    "mirror": ("VDI_MIRROR",),
}
"""Operation → what the driver must be able to do; one of several is enough."""

WHILE_IN_USE = frozenset({"snapshot", "clone", "resize_online", "mirror", "blocked", "enable_cbt", "disable_cbt"})
"""Operations on a disk that a machine has open for writing."""
ROW_ONLY = frozenset({"forget", "force_unlock", "blocked"})
"""Operations that do not need the medium."""
ON_MISSING = ROW_ONLY | {"destroy", "update"}
"""Operations on a disk that the last scan did not find."""


class Drives(NamedTuple):
    """What is to be known of all the drives that a disk is in; there may be thousands."""

    attached: bool
    attached_for_writing: bool
    can_grow: bool
    """Whether a machine that has the disk alone, for writing, is there to see it grow."""
    busy: ApiError | None
    """OTHER_OPERATION_IN_PROGRESS where one of them is being plugged, say."""


def check(database: Database, vdi: Ref, operation: str) -> ApiError | None:
    """The first reason why the operation cannot start now, or None."""
    return judge(database, vdi)(operation)


def judge(database: Database, vdi: Ref) -> Callable[[str], ApiError | None]:
    """`check` of one disk as it is now, for many operations."""
    record = database.record("VDI", vdi)
    drives = drives_of(database, record)
    return lambda operation: (
        _under_way(vdi, record, operation)
        or _repository(database, record, operation)
        or _in_use(vdi, drives, operation)
        or drives.busy
        or _capability(database, record, drives, operation)
        or _state(vdi, record, operation)
        or _particular(database, vdi, record, operation)
    )


def drives_of(database: Database, record: Mapping[str, Any]) -> Drives:
    """One look at the drives that a disk with this record is in."""
    attached, attached_for_writing, awake, busy = 0, False, False, None
    for vbd in record["VBDs"]:
        drive = database.record("VBD", vbd)
        if drive["currently_attached"]:
            attached += 1
            if drive["mode"] != "RO":
                attached_for_writing = True
                awake = awake or _is_awake(database, drive["VM"])
        if busy is None:
            for task, running in drive["current_operations"].items():
                busy = ApiError("OTHER_OPERATION_IN_PROGRESS", "VBD", vbd, running, task)
    return Drives(attached > 0, attached_for_writing, attached == 1 and awake, busy)


def _is_awake(database: Database, vm: Ref) -> bool:
    """Whether the machine runs, or is about to: a call that finds it starting waits for its turn."""
    machine = database.find("VM", vm)
    return machine is not None and machine.record["power_state"] != "Suspended"


def _under_way(vdi: Ref, record: Mapping[str, Any], operation: str) -> ApiError | None:
    """A copy only reads, so others may read meanwhile."""
    for task, running in record["current_operations"].items():
        if not (running == "copy" and operation == "copy"):
            return ApiError("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi, running, task)
    return None


def _repository(database: Database, record: Mapping[str, Any], operation: str) -> ApiError | None:
    if operation in ROW_ONLY:
        return None
    sr = database.find("SR", record["SR"])
    if sr is None:
        return ApiError("HANDLE_INVALID", "SR", record["SR"])
    if not sr.record["PBDs"]:
        return ApiError("SR_HAS_NO_PBDS", record["SR"])
    if not any(database.get("PBD", pbd, "currently_attached") for pbd in sr.record["PBDs"]):
        return ApiError("SR_NOT_ATTACHED", record["SR"])
    return None


def _in_use(vdi: Ref, drives: Drives, operation: str) -> ApiError | None:
    if not drives.attached or (operation in WHILE_IN_USE and (operation != "resize_online" or drives.can_grow)):
        return None
    if operation == "copy" and not drives.attached_for_writing:
        return None
    return ApiError("VDI_IN_USE", vdi, operation)


def _capability(database: Database, record: Mapping[str, Any], drives: Drives, operation: str) -> ApiError | None:
    wanted = CAPABILITY.get(operation)
    if operation == "resize_online" and drives.attached:
        wanted = ("VDI_RESIZE_ONLINE",)
    if wanted is None or not set(wanted).isdisjoint(_capabilities(database, record["SR"])):
        return None
    return ApiError("SR_OPERATION_NOT_SUPPORTED", record["SR"])


def _state(vdi: Ref, record: Mapping[str, Any], operation: str) -> ApiError | None:
    if not record["managed"]:
        return ApiError("VDI_NOT_MANAGED", vdi)
    if record["missing"] and operation not in ON_MISSING:
        return ApiError("VDI_MISSING", record["SR"], vdi)
    return None


def _particular(database: Database, vdi: Ref, record: Mapping[str, Any], operation: str) -> ApiError | None:
    if operation == "snapshot" and record["sharable"]:
        return ApiError("VDI_IS_SHARABLE", vdi)
    if operation == "destroy":
        return _indestructible(database, vdi, record)
    return None


def _indestructible(database: Database, vdi: Ref, record: Mapping[str, Any]) -> ApiError | None:
    if database.get("SR", record["SR"], "type") == "udev":
        return ApiError("VDI_IS_A_PHYSICAL_DEVICE", vdi)
    if record["is_tools_iso"]:
        return ApiError("SR_OPERATION_NOT_SUPPORTED", record["SR"])
    if record["type"] == "rrd":
        return ApiError("VDI_HAS_RRDS", vdi)
    for row in database.rows("pool").values():
        if record["type"] == "ha_statefile" and row.record["ha_enabled"]:
            return ApiError("HA_IS_ENABLED")
        if record["type"] == "redo_log" and row.record["redo_log_enabled"]:
            return ApiError("OPERATION_NOT_ALLOWED", "The redo log is in use; disable it first.")
    return None


def _capabilities(database: Database, sr: Ref) -> tuple[str, ...]:
    type_ = database.get("SR", sr, "type")
    return next((row.record["capabilities"] for row in database.rows("SM").values() if row.record["type"] == type_), ())
