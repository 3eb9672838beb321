"""The host_crashdump class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import DATETIME, INT, STRING, STRING_MAP, VOID, RefTo

CLASS = Class(
    "host_crashdump",
    "A dump left behind by a crash of a host.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("host", RefTo("host"), CONSTRUCTOR, "rio",
            "The host that crashed."),
        Field("timestamp", DATETIME, RUNTIME, "rio",
            "When the crash happened."),
        Field("size", INT, RUNTIME, "rio",
            "Size of the dump in bytes."),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free key/value pairs for clients.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
    messages=(
        Message("upload",
            (
                Param("self", RefTo("host_crashdump"), "The host_crashdump to act on."),
                Param("url", STRING, "Where to send it; empty uses the default support address."),
                Param("options", STRING_MAP, "Upload settings, such as a proxy."),
            ), VOID, "rio",
            "Sends the dump to a server for analysis.", least_role="pool-operator"),
        Message("destroy",
            (
                Param("self", RefTo("host_crashdump"), "The host_crashdump to act on."),
            ), VOID, "rio",
            "Deletes the dump from the host's disk, together with its record.", least_role="pool-operator"),
    ),
)
