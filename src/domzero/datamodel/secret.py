"""The secret class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import STRING, STRING_MAP

CLASS = Class(
    "secret",
    "A confidential value, such as a password, stored apart so that other settings can refer to it by UUID.",
    "midnight-ride",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object.", getter_role="pool-operator"),
        Field("value", STRING, RW, "rio",
            "The confidential text itself; readable only with sufficient privilege.",
            setter_role="pool-operator", getter_role="pool-operator"),
        Field("other_config", STRING_MAP, RW, "rio",
            "Free key/value pairs for clients.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
    reader_role="pool-operator",
    constructor_role="pool-operator",
    destructor_role="pool-operator",
    emits_events=False,
)
