"""Which operation a virtual network card takes now: a pure decision over the database."""

from __future__ import annotations

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.storage.vbd_admission import machine_busy, machine_state

LISTED = ("attach", "plug", "unplug")
"""The operations that may appear in `allowed_operations`."""

HOT = frozenset({"plug", "unplug"})


def check(database: Database, vif: Ref, operation: str) -> ApiError | None:
    """The first reason why the operation cannot start now, or None."""
    record = database.record("VIF", vif)
    vm = database.find("VM", record["VM"])
    if vm is None:
        return ApiError("HANDLE_INVALID", "VM", record["VM"])
    for task, running in record["current_operations"].items():
        return ApiError("OTHER_OPERATION_IN_PROGRESS", "VIF", vif, running, task)
    if operation in HOT:
        refusal = machine_state(vm.ref, vm.record, ("Running",)) or machine_busy(vm.ref, vm.record)
        if refusal is not None:
            return refusal
    if operation == "unplug":
        return None if record["currently_attached"] else ApiError("DEVICE_ALREADY_DETACHED", vif)
    if record["currently_attached"]:
        return ApiError("DEVICE_ALREADY_ATTACHED", vif)
    if database.find("network", record["network"]) is None:
        return ApiError("HANDLE_INVALID", "network", record["network"])
    return None
