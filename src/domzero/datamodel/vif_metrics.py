"""The VIF_metrics class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import DATETIME, FLOAT, STRING, STRING_MAP

CLASS = Class(
    "VIF_metrics",
    "Traffic figures for one VM network interface; performance history has largely replaced them.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("io_read_kbs", FLOAT, RUNTIME, "rio",
            "Rate at which data is read through the interface, in KiB/s.",
            default=0.0, deprecated="tampa", removed="tampa", volatile=True),
        Field("io_write_kbs", FLOAT, RUNTIME, "rio",
            "Rate at which data is written through the interface, in KiB/s.",
            default=0.0, deprecated="tampa", removed="tampa", volatile=True),
        Field("last_updated", DATETIME, RUNTIME, "rio",
            "When these figures were last refreshed.", volatile=True),
        Field("other_config", STRING_MAP, RW, "orlando",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="vm-admin"),
    ),
    deprecated="tampa",
    removed="tampa",
)
