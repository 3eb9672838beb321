"""The VTPM class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, NULL_REF, STRING, VOID, EnumOf, MapOf, RefTo, SetOf

CLASS = Class(
    "VTPM",
    "A virtual trusted platform module that gives a VM secure storage for keys and measurements.",
    "22.26.0",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("allowed_operations", SetOf(EnumOf("vtpm_operations")), RUNTIME, "rio",
            "Operations that could be started on the module at this moment.", default=()),
        Field("current_operations", MapOf(STRING, EnumOf("vtpm_operations")), RUNTIME, "rio",
            "Operations now in progress on the module, keyed by the reference of the task running each.",
            default=EMPTY_MAP),
        Field("VM", RefTo("VM"), CONSTRUCTOR, "rio",
            "Virtual machine that owns the module."),
        Field("backend", RefTo("VM"), RUNTIME, "rio",
            "Domain that provides the module's back end; null when it is not used.", default=NULL_REF),
        Field("persistence_backend", EnumOf("persistence_backend"), RUNTIME, "22.26.0",
            "Where the module's contents are kept between VM starts.", default="xapi"),
        Field("is_unique", BOOL, CONSTRUCTOR, "22.26.0",
            "True if the contents are never duplicated, so that copies of the VM receive an empty module.",
            default=False),
        Field("is_protected", BOOL, RUNTIME, "22.26.0",
            "True if the stored contents are protected against being read or altered while at rest.", default=False),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("VTPM"), "The VTPM to act on."),
            ), VOID, "22.26.0",
            "Removes the module from its VM and deletes the secrets inside; the VM must be halted.",
            least_role="vm-admin"),
        Message("create",
            (
                Param("vM", RefTo("VM"), "Virtual machine to receive the module."),
                Param("is_unique", BOOL, "True to prevent the contents from being duplicated with the VM."),
            ), RefTo("VTPM"), "22.26.0",
            "Adds an empty module to a halted VM; fails if the VM already has one.", least_role="vm-admin"),
    ),
    enums=(
        Enum("vtpm_operations",
            "Actions that can be permitted or in progress on a virtual trusted platform module.",
            {
                "destroy": "Removing the module together with its contents.",
            }),
        Enum("persistence_backend",
            "Where a trusted platform module's contents are kept.",
            {
                "xapi": "The management server's own database keeps the contents.",
            }),
    ),
)
