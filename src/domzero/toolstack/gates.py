"""One gate for each class whose objects have operations: which may start, which exclude each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from domzero.engine.admission import Gate
from domzero.engine.clock import Clock
from domzero.engine.database import Database
from domzero.idl.types import Ref
from domzero.toolstack import vm_appliance_admission
from domzero.toolstack.host import admission as host_admission
from domzero.toolstack.network import vif_admission
from domzero.toolstack.storage import sr_admission, vbd_admission, vdi_admission
from domzero.toolstack.vm import admission as vm_admission
from domzero.toolstack.vm.operations import LISTED as VM_LISTED
from domzero.toolstack.vm.operations import RUNS_OVER_OTHERS

PORTION = 32
"""Objects whose operations are recomputed in one go: some milliseconds."""


def build_gates(database: Database, clock: Clock) -> dict[str, Gate]:
    """Class → gate."""
    gates: dict[str, Gate] = {}
    tell_drives, tell_devices = partial(_refresh_drives, database, gates), partial(_refresh_devices, database, gates)
    gates.update({
        "VBD": Gate(database, "VBD", vbd_admission.check, vbd_admission.LISTED, clock),
        "VDI": Gate(
            database, "VDI", vdi_admission.check, vdi_admission.LISTED, clock, judge=vdi_admission.judge,
            on_change=tell_drives,
        ),
        "VIF": Gate(database, "VIF", vif_admission.check, vif_admission.LISTED, clock),
        "SR": Gate(database, "SR", sr_admission.check, sr_admission.LISTED, clock),
        "host": Gate(database, "host", host_admission.check, host_admission.LISTED, clock),
        "VM_appliance": Gate(
            database, "VM_appliance", vm_appliance_admission.check, vm_appliance_admission.LISTED, clock
        ),
        "VM": Gate(
            database, "VM", vm_admission.check, VM_LISTED, clock, overtaking=RUNS_OVER_OTHERS, judge=vm_admission.judge,
            on_change=tell_devices,
        ),
    })  # fmt: skip
    return gates


def _refresh_drives(database: Database, gates: Mapping[str, Gate], vdi: Ref, _: str) -> None:
    """A drive waits for the disk in it."""
    for vbd in database.get("VDI", vdi, "VBDs"):
        gates["VBD"].refresh(vbd)


def _refresh_devices(database: Database, gates: Mapping[str, Gate], vm: Ref, operation: str) -> None:
    """Devices are left alone while their machine starts, stops or is being saved."""
    if operation in vbd_admission.MACHINE_BUSY:
        for cls, field in (("VBD", "VBDs"), ("VIF", "VIFs")):
            for device in database.get("VM", vm, field):
                gates[cls].refresh(device)


def refresh_changed(database: Database, gates: dict[str, Gate], since: int) -> None:
    """Recompute what those objects allow that have changed after that generation."""
    changed = [row for row in database.changes.changed_since(since) if row.class_name in gates]
    with database.transaction():
        for row in changed:
            gates[row.class_name].refresh(row.ref)


async def refresh_all(database: Database, gates: dict[str, Gate]) -> None:
    """Recompute what every object allows, a few at a time so that calls are answered meanwhile.

    What was stored holds until then. It differs only where the rules have: in another version, or after a repair.
    """
    for cls, gate in gates.items():
        refs = database.refs(cls)
        for start in range(0, len(refs), PORTION):
            with database.transaction():
                for ref in refs[start : start + PORTION]:
                    gate.refresh(ref)
            await asyncio.sleep(0)
