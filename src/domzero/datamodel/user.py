"""The user class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import STRING, STRING_MAP

CLASS = Class(
    "user",
    "A local account known to the API; directory users are subjects instead.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("short_name", STRING, CONSTRUCTOR, "rio",
            "Login name of the account."),
        Field("fullname", STRING, RW, "rio",
            "Full name of the person."),
        Field("other_config", STRING_MAP, RW, "orlando",
            "Free key/value pairs for clients.", default=EMPTY_MAP),
    ),
    deprecated="george",
    has_get_all=False,
    constructor_role="pool-admin",
    destructor_role="pool-admin",
    emits_events=False,
)
