"""The blob class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.types import BOOL, DATETIME, INT, STRING, VOID, RefTo

CLASS = Class(
    "blob",
    "A named piece of binary data attached to another object; its content is moved over HTTP.",
    "orlando",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "rio",
            "Name of the attachment.", default="", setter_role="pool-operator"),
        Field("name_description", STRING, RW, "rio",
            "What the attachment holds.", default="", setter_role="pool-operator"),
        Field("size", INT, RUNTIME, "rio",
            "Size of the content in bytes; 0 until something is uploaded."),
        Field("public", BOOL, RW, "tampa",
            "True when it can be downloaded without logging in.", default=False, setter_role="pool-operator"),
        Field("last_updated", DATETIME, CONSTRUCTOR, "rio",
            "When the content last changed."),
        Field("mime_type", STRING, CONSTRUCTOR, "rio",
            "Media type reported when the content is downloaded."),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("blob"), "The blob to act on."),
            ), VOID, "orlando",
            "Deletes the attachment and its content.", least_role="pool-operator", asynchronous=False),
        Message("create",
            (
                Param("mime_type", STRING, "Media type of the content; empty means generic binary."),
                Param("public", BOOL, "True to let it be downloaded without logging in."),
            ), RefTo("blob"), "orlando",
            "Creates an empty attachment that belongs to no object yet, to be filled over HTTP.",
            least_role="pool-operator", asynchronous=False),
    ),
    has_get_by_name_label=True,
)
