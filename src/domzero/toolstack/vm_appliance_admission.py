"""Which operation an appliance takes now: one at a time."""

from __future__ import annotations

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

LISTED = ("start", "clean_shutdown", "hard_shutdown", "shutdown")
"""The operations that may appear in `allowed_operations`."""


def check(database: Database, appliance: Ref, operation: str) -> ApiError | None:
    """The first reason why the operation cannot start now, or None."""
    for task, running in database.get("VM_appliance", appliance, "current_operations").items():
        return ApiError("OTHER_OPERATION_IN_PROGRESS", "VM_appliance", appliance, running, task)
    return None
