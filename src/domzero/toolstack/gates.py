"""One gate for each class whose objects have operations: which may start, which exclude each other."""

from __future__ import annotations

from domzero.engine.admission import Gate
from domzero.engine.clock import Clock
from domzero.engine.database import Database
from domzero.toolstack import sr_admission, vbd_admission, vdi_admission, vif_admission, vm_appliance_admission
from domzero.toolstack.host import admission as host_admission
from domzero.toolstack.vm import admission as vm_admission
from domzero.toolstack.vm.operations import LISTED as VM_LISTED
from domzero.toolstack.vm.operations import RUNS_OVER_OTHERS


def build_gates(database: Database, clock: Clock) -> dict[str, Gate]:
    """Class → gate."""
    gates = {
        "VBD": Gate(database, "VBD", vbd_admission.check, vbd_admission.LISTED, clock),
        "VDI": Gate(database, "VDI", vdi_admission.check, vdi_admission.LISTED, clock, judge=vdi_admission.judge),
        "VIF": Gate(database, "VIF", vif_admission.check, vif_admission.LISTED, clock),
        "SR": Gate(database, "SR", sr_admission.check, sr_admission.LISTED, clock),
        "host": Gate(database, "host", host_admission.check, host_admission.LISTED, clock),
        "VM_appliance": Gate(
            database, "VM_appliance", vm_appliance_admission.check, vm_appliance_admission.LISTED, clock
        ),
    }
    gates["VM"] = Gate(
        database, "VM", vm_admission.check, VM_LISTED, clock, overtaking=RUNS_OVER_OTHERS, judge=vm_admission.judge
    )
    return gates


def refresh_all(database: Database, gates: dict[str, Gate]) -> None:
    """Recompute what every object allows, after a start or a change of the rules."""
    with database.transaction():
        for cls, gate in gates.items():
            for ref in database.refs(cls):
                gate.refresh(ref)
