"""Which operation an SR takes now: pure decisions (facts: one operation at a time, a plug excepted)."""

from __future__ import annotations

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

CAPABILITY = {
    "vdi_create": "VDI_CREATE",
    "vdi_destroy": "VDI_DELETE",
    "vdi_resize": "VDI_RESIZE",
    "vdi_clone": "VDI_CLONE",
    "vdi_snapshot": "VDI_SNAPSHOT",
    "vdi_introduce": "VDI_INTRODUCE",
    "update": "SR_UPDATE",
}
"""Operation → what the SM driver must be able to do."""

LISTED = (
    "scan", "destroy", "forget", "plug", "unplug", "update", "vdi_create", "vdi_introduce", "vdi_destroy", "vdi_resize",
    "vdi_clone", "vdi_snapshot", "pbd_create", "pbd_destroy",
)  # fmt: skip
"""The operations that may appear in `allowed_operations`."""

ALONGSIDE = frozenset({"plug", "vdi_create", "vdi_destroy", "vdi_clone", "vdi_snapshot", "vdi_resize", "vdi_introduce"})
"""Operations on disks that take turns in the driver and need not lock the whole repository against each other."""


def check(database: Database, sr: Ref, operation: str) -> ApiError | None:
    """The first reason why the operation cannot start now, or None."""
    record = database.record("SR", sr)
    if operation not in LISTED:
        return ApiError("SR_OPERATION_NOT_SUPPORTED", sr)
    for task, running in record["current_operations"].items():
        if not (running in ALONGSIDE and operation in ALONGSIDE):
            return ApiError("OTHER_OPERATION_IN_PROGRESS", "SR", sr, running, task)
    needed = CAPABILITY.get(operation)
    if needed is not None and needed not in _capabilities(database, record["type"]):
        return ApiError("SR_OPERATION_NOT_SUPPORTED", sr)
    if operation in ("destroy", "forget"):
        return _check_removal(database, sr, operation)
    return None


def _check_removal(database: Database, sr: Ref, operation: str) -> ApiError | None:
    record = database.record("SR", sr)
    if any(database.get("PBD", pbd, "currently_attached") for pbd in record["PBDs"]):
        return ApiError("SR_HAS_PBD", sr)
    marked = record["other_config"].get("indestructible") == "true"
    if record["is_tools_sr"] or (operation == "destroy" and marked):
        return ApiError("SR_INDESTRUCTIBLE", sr)
    if operation == "destroy" and not record["PBDs"]:
        return ApiError("SR_HAS_NO_PBDS", sr)
    if operation == "destroy" and any(database.get("VDI", vdi, "managed") for vdi in record["VDIs"]):
        return ApiError("SR_NOT_EMPTY")
    return None


def _capabilities(database: Database, type: str) -> tuple[str, ...]:
    return next((row.record["capabilities"] for row in database.rows("SM").values() if row.record["type"] == type), ())
