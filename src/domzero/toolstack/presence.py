"""Whether a drive or card is in a domain, which is not the same as being attached.

A suspended machine, and a checkpoint, keep their devices attached: they come back with the memory. Until then nobody
uses them, and the host's media and interfaces need not wait.
"""

from __future__ import annotations

from domzero.engine.database import Database
from domzero.idl.types import Ref


def is_in_domain(database: Database, cls: str, device: Ref) -> bool:
    """Whether a domain has the VBD or VIF (`cls`), or may have it as soon as an operation under way is through."""
    record = database.record(cls, device)
    if not record["currently_attached"]:
        return False
    machine = database.find("VM", record["VM"])
    if machine is None:
        return False
    return machine.record["power_state"] != "Suspended" or bool(machine.record["current_operations"])


def writers(database: Database, vdi: Ref) -> set[Ref]:
    """The machines that have the disk attached for writing, those included that are suspended."""
    drives = (database.record("VBD", vbd) for vbd in database.get("VDI", vdi, "VBDs"))
    return {drive["VM"] for drive in drives if drive["currently_attached"] and drive["mode"] != "RO"}
