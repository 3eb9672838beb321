"""The Feature class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Field
from domzero.idl.types import BOOL, STRING, RefTo

CLASS = Class(
    "Feature",
    "An optional or experimental feature of a host.",
    "falcon",
    fields=(
        Field("uuid", STRING, RUNTIME, "falcon",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, CONSTRUCTOR, "rio",
            "Name of the feature.", default=""),
        Field("name_description", STRING, CONSTRUCTOR, "rio",
            "What the feature offers.", default=""),
        Field("enabled", BOOL, RUNTIME, "falcon",
            "True when the feature is switched on for the host.", default=False),
        Field("experimental", BOOL, CONSTRUCTOR, "falcon",
            "True when the feature is not yet meant for production use.", default=False),
        Field("version", STRING, CONSTRUCTOR, "falcon",
            "Version of the feature.", default="1.0"),
        Field("host", RefTo("host"), RUNTIME, "falcon",
            "The host that has the feature."),
    ),
    has_get_by_name_label=True,
)
