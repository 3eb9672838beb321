"""The host_cpu class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import FLOAT, INT, STRING, STRING_MAP, RefTo

CLASS = Class(
    "host_cpu",
    "One logical processor of a host; deprecated, host.cpu_info holds a summary.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("host", RefTo("host"), RUNTIME, "rio",
            "The host containing the processor."),
        Field("number", INT, RUNTIME, "rio",
            "Index of the processor within the host."),
        Field("vendor", STRING, RUNTIME, "rio",
            "Maker of the processor."),
        Field("speed", INT, RUNTIME, "rio",
            "Nominal speed in MHz."),
        Field("modelname", STRING, RUNTIME, "rio",
            "Full model name as the processor reports it."),
        Field("family", INT, RUNTIME, "rio",
            "Processor family number."),
        Field("model", INT, RUNTIME, "rio",
            "Model number within the family."),
        Field("stepping", STRING, RUNTIME, "rio",
            "Revision of the model."),
        Field("flags", STRING, RUNTIME, "rio",
            "Capability flags of the processor, space-separated."),
        Field("features", STRING, RUNTIME, "rio",
            "Capability bits of the processor in hexadecimal."),
        Field("utilisation", FLOAT, RUNTIME, "rio",
            "Share of time the processor is busy, 0–1.", volatile=True),
        Field("other_config", STRING_MAP, RW, "orlando",
            "Free key/value pairs for clients.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
    deprecated="midnight-ride",
)
