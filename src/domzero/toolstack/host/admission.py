"""Which operation a host takes now: pure decisions."""

from __future__ import annotations

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

LISTED = ("provision", "evacuate", "shutdown", "reboot", "power_on", "vm_start", "vm_resume", "vm_migrate", "enable")

_MACHINES = frozenset({"provision", "vm_start", "vm_resume", "vm_migrate"})


def check(database: Database, host: Ref, operation: str) -> ApiError | None:
    """The first reason why the operation cannot start now, or None.

    Work on machines runs side by side; what empties or ends the host excludes it and each other.
    """
    record = database.record("host", host)
    if operation not in LISTED:
        return ApiError("OPERATION_NOT_ALLOWED", f"The operation {operation} does not exist for hosts.")
    for task, running in record["current_operations"].items():
        if not (running in _MACHINES and operation in _MACHINES):
            return ApiError("OTHER_OPERATION_IN_PROGRESS", "host", host, running, task)
    live = database.get("host_metrics", record["metrics"], "live")
    if operation == "power_on":
        return ApiError("HOST_IS_LIVE", host) if live else None
    if operation in _MACHINES and not record["enabled"]:
        return ApiError("HOST_DISABLED", host)
    if operation in ("shutdown", "reboot"):
        return _check_end(database, host)
    return None


def guests(database: Database, host: Ref) -> tuple[Ref, ...]:
    """The machines that live on a host, the control domain left out."""
    resident = database.get("host", host, "resident_VMs")
    return tuple(vm for vm in resident if not database.get("VM", vm, "is_control_domain"))


def _check_end(database: Database, host: Ref) -> ApiError | None:
    if database.get("host", host, "enabled"):
        return ApiError("HOST_NOT_DISABLED")
    if guests(database, host):
        return ApiError("HOST_IN_USE", host, "VM", guests(database, host)[0])
    return None
