"""The role class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Field, Message, Param
from domzero.idl.types import BOOL, STRING, STRING_SET, RefTo, SetOf

CLASS = Class(
    "role",
    "A named set of permissions that can be granted to subjects; single permissions are modelled as roles too.",
    "midnight-ride",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, CONSTRUCTOR, "midnight-ride",
            "Short name of the role, for example pool-admin or vm-operator.", default=""),
        Field("name_description", STRING, CONSTRUCTOR, "midnight-ride",
            "What holders of the role are meant to be able to do.", default=""),
        Field("subroles", SetOf(RefTo("role")), CONSTRUCTOR, "midnight-ride",
            "Roles and permissions contained in this one; empty for a single permission.", default=()),
        Field("is_internal", BOOL, RUNTIME, "22.5.0",
            "True when the role exists only for the system's own use and should not be offered to people.",
            default=False),
    ),
    messages=(
        Message("get_by_permission_name_label",
            (
                Param("label", STRING, "Name of the permission to search for."),
            ), SetOf(RefTo("role")), "midnight-ride",
            "Finds all roles that include the permission with the given name.",
            least_role="read-only", asynchronous=False),
        Message("get_by_permission",
            (
                Param("permission", RefTo("role"), "The role to act on."),
            ), SetOf(RefTo("role")), "midnight-ride",
            "Finds all roles that include the given permission.", least_role="read-only", asynchronous=False),
        Message("get_permissions_name_label",
            (
                Param("self", RefTo("role"), "The role to act on."),
            ), STRING_SET, "midnight-ride",
            "Lists the names of all permissions the role confers, following nested roles.",
            least_role="read-only", asynchronous=False),
        Message("get_permissions",
            (
                Param("self", RefTo("role"), "The role to act on."),
            ), SetOf(RefTo("role")), "midnight-ride",
            "Lists all permissions the role confers, following nested roles.",
            least_role="read-only", asynchronous=False),
    ),
    has_get_by_name_label=True,
)
