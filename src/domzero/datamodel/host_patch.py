"""The host_patch class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, DATETIME, INT, NULL_REF, STRING, STRING_MAP, VOID, RefTo

CLASS = Class(
    "host_patch",
    "Record of an older-style patch on one host.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, CONSTRUCTOR, "rio",
            "Name of the patch.", default=""),
        Field("name_description", STRING, CONSTRUCTOR, "rio",
            "What the patch changes or fixes.", default=""),
        Field("version", STRING, CONSTRUCTOR, "rio",
            "Version of the patch."),
        Field("host", RefTo("host"), CONSTRUCTOR, "rio",
            "The host concerned."),
        Field("applied", BOOL, RUNTIME, "rio",
            "True when the patch has been installed on the host."),
        Field("timestamp_applied", DATETIME, RUNTIME, "rio",
            "When it was installed."),
        Field("size", INT, RUNTIME, "rio",
            "Size of the patch in bytes."),
        Field("pool_patch", RefTo("pool_patch"), CONSTRUCTOR, "miami",
            "The pool-wide patch this record belongs to.", default=NULL_REF),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free key/value pairs for clients.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
    messages=(
        Message("apply",
            (
                Param("self", RefTo("host_patch"), "The host_patch to act on."),
            ), STRING, "rio",
            "Deprecated: installs the patch on its host and returns the output; use the pool_patch call.",
            least_role="pool-operator", deprecated="miami"),
        Message("destroy",
            (
                Param("self", RefTo("host_patch"), "The host_patch to act on."),
            ), VOID, "rio",
            "Deprecated: deletes the record and file of a patch that is not installed on the host.",
            least_role="pool-operator", deprecated="miami"),
    ),
    deprecated="ely",
    has_get_by_name_label=True,
)
