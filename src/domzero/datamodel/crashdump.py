"""The crashdump class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import STRING, STRING_MAP, VOID, RefTo

CLASS = Class(
    "crashdump",
    "A memory dump saved on a disk when a guest operating system crashed.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("VM", RefTo("VM"), CONSTRUCTOR, "rio",
            "Virtual machine whose guest crashed."),
        Field("VDI", RefTo("VDI"), CONSTRUCTOR, "rio",
            "Disk on which the dump is stored."),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("crashdump"), "The crashdump to act on."),
            ), VOID, "rio",
            "Deletes the crash dump along with the disk that stores it.", least_role="pool-operator"),
    ),
    deprecated="inverness",
)
