"""The host_metrics class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, DATETIME, INT, STRING, STRING_MAP

CLASS = Class(
    "host_metrics",
    "Figures about a host that change often.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("memory_total", INT, RUNTIME, "rio",
            "Memory installed in the host, in bytes."),
        Field("memory_free", INT, RUNTIME, "rio",
            "Memory not in use on the host, in bytes.",
            default=0, deprecated="midnight-ride", removed="tampa", volatile=True),
        Field("live", BOOL, RUNTIME, "rio",
            "True while the coordinator is hearing from the host; false some minutes after contact is lost."),
        Field("last_updated", DATETIME, RUNTIME, "rio",
            "When these figures were last refreshed.", volatile=True),
        Field("other_config", STRING_MAP, RW, "orlando",
            "Free key/value pairs for clients.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
)
