"""The LVHD class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, Class, Field, Message, Param
from domzero.idl.types import INT, STRING, RefTo

CLASS = Class(
    "LVHD",
    "Special operations on LVM-based repositories that store disks in VHD format.",
    "dundee",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
    ),
    messages=(
        Message("enable_thin_provisioning",
            (
                Param("host", RefTo("host"), "Host on which to carry out the conversion."),
                Param("SR", RefTo("SR"), "LVHD repository to be converted to thin provisioning."),
                Param("initial_allocation", INT, "Bytes to set aside for each disk to begin with."),
                Param("allocation_quantum", INT, "Bytes added each time a disk needs to grow."),
            ), STRING, "dundee",
            "Converts a thickly provisioned LVHD repository so that disks take up space only as they are written."),
    ),
    has_get_all=False,
    emits_events=False,
)
