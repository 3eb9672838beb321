"""The sr_stat class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, Class, Durability, Enum, Field
from domzero.idl.types import BOOL, INT, STRING, EnumOf, OptionOf

CLASS = Class(
    "sr_stat",
    "A summary of a storage repository found by probing, before it is introduced.",
    "kolkata",
    fields=(
        Field("uuid", OptionOf(STRING), RUNTIME, "kolkata",
            "Identifier of the repository found, if the storage carries one."),
        Field("name_label", STRING, RUNTIME, "kolkata",
            "Name recorded on the storage for the repository found."),
        Field("name_description", STRING, RUNTIME, "kolkata",
            "Description recorded on the storage for the repository found."),
        Field("free_space", INT, RUNTIME, "kolkata",
            "Bytes of the storage still unused."),
        Field("total_space", INT, RUNTIME, "kolkata",
            "Total capacity of the storage in bytes."),
        Field("clustered", BOOL, RUNTIME, "kolkata",
            "True if the repository needs a cluster stack to be used."),
        Field("health", EnumOf("sr_health"), RUNTIME, "kolkata",
            "Condition of the repository as judged by its driver."),
    ),
    enums=(
        Enum("sr_health",
            "Condition of a storage repository as reported by its driver.",
            {
                "healthy": "The storage is fully available and working normally.",
                "recovering": "The storage is being repaired or rebuilt and may not be usable yet.",
            }),
    ),
    durability=Durability.NONE,
    has_getters=False,
    has_get_all=False,
    emits_events=False,
)
