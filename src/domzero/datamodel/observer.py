"""The Observer class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, STRING, STRING_MAP, STRING_SET, VOID, RefTo, SetOf

CLASS = Class(
    "Observer",
    "A rule that collects tracing data from server components, to find where time is spent.",
    "23.14.0",
    fields=(
        Field("uuid", STRING, RUNTIME, "23.14.0",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "rio",
            "Name of the observer.", default=""),
        Field("name_description", STRING, RW, "rio",
            "Notes about the observer.", default=""),
        Field("hosts", SetOf(RefTo("host")), CONSTRUCTOR, "23.14.0",
            "Hosts to trace; an empty set means all of them.", default=()),
        Field("attributes", STRING_MAP, CONSTRUCTOR, "23.14.0",
            "Key/value pairs attached to each collected trace.", default=EMPTY_MAP),
        Field("endpoints", STRING_SET, CONSTRUCTOR, "23.14.0",
            "Destinations of the traces: local files or addresses of trace collectors.", default=()),
        Field("components", STRING_SET, CONSTRUCTOR, "23.14.0",
            "Server components to trace; an empty set means all that can be.", default=()),
        Field("enabled", BOOL, CONSTRUCTOR, "23.14.0",
            "True while traces are being collected.", default=False),
    ),
    messages=(
        Message("set_components",
            (
                Param("self", RefTo("Observer"), "The Observer to act on."),
                Param("value", STRING_SET, "Component names, or an empty set for all."),
            ), VOID, "23.14.0",
            "Chooses which server components are traced; an unknown name is refused."),
        Message("set_endpoints",
            (
                Param("self", RefTo("Observer"), "The Observer to act on."),
                Param("value", STRING_SET, "Destinations to use from now on."),
            ), VOID, "23.14.0",
            "Chooses where traces are sent."),
        Message("set_attributes",
            (
                Param("self", RefTo("Observer"), "The Observer to act on."),
                Param("value", STRING_MAP, "The new key/value pairs."),
            ), VOID, "23.14.0",
            "Replaces the pairs attached to each trace."),
        Message("set_enabled",
            (
                Param("self", RefTo("Observer"), "The Observer to act on."),
                Param("value", BOOL, "True to collect."),
            ), VOID, "23.14.0",
            "Starts or stops the collection of traces."),
        Message("set_hosts",
            (
                Param("self", RefTo("Observer"), "The Observer to act on."),
                Param("value", SetOf(RefTo("host")), "Hosts to trace, or an empty set for all."),
            ), VOID, "23.14.0",
            "Chooses which hosts are traced."),
    ),
    has_get_by_name_label=True,
    constructor_role="pool-admin",
    destructor_role="pool-admin",
)
