"""What one measurement is: its name and unit, and how readings of it become a rate.

Names and units are XenServer's (its administrator's guide, the tables of available metrics), so that its tools find
what they know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

UNKNOWN = math.nan

FRACTION = "(fraction)"
BYTES = "B"
KIB = "KiB"
BYTES_PER_SECOND = "B/s"
MIB_PER_SECOND = "MiB/s"
REQUESTS_PER_SECOND = "requests/s"
MICROSECONDS = "us"
REQUESTS = "requests"
COUNT = ""


class Kind(Enum):
    """How a reading is to be understood (rrdcreate(1))."""

    GAUGE = "GAUGE"
    """It is the value itself."""
    DERIVE = "DERIVE"
    """It is a counter; the value is its growth per second."""
    ABSOLUTE = "ABSOLUTE"
    """It is a counter that began anew after the reading before."""


@dataclass(frozen=True, slots=True)
class Source:
    """One measurement of one machine, host or repository.

    A value below `minimum` is unknown (a counter that began anew); one above `maximum` is taken as `maximum`, for
    that is only clocks that do not tick together. A standard source is recorded without being asked for.
    """

    name: str
    description: str
    units: str
    kind: Kind = Kind.GAUGE
    minimum: float = 0.0
    maximum: float = math.inf
    standard: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """A source as it stands now: whether its history is kept, and its latest value (NaN where it is unknown)."""

    source: Source
    recorded: bool
    value: float
