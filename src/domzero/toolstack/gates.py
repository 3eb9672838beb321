"""One gate for each class whose objects have operations: which may start, which exclude each other."""

from __future__ import annotations

from domzero.engine.admission import Gate
from domzero.engine.clock import Clock
from domzero.engine.database import Database
from domzero.toolstack import sr_admission


def build_gates(database: Database, clock: Clock) -> dict[str, Gate]:
    """Class → gate."""
    return {"SR": Gate(database, "SR", sr_admission.check, sr_admission.LISTED, clock)}
