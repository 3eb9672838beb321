"""The subject class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import STRING, STRING_MAP, STRING_SET, VOID, RefTo, SetOf

CLASS = Class(
    "subject",
    "A directory user or group that has been granted access to the pool.",
    "george",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("subject_identifier", STRING, CONSTRUCTOR, "george",
            "The directory's own identifier for the user or group, unique within the pool.", default=""),
        Field("other_config", STRING_MAP, CONSTRUCTOR, "george",
            "Details copied from the directory, such as the display name, kept with the subject.", default=EMPTY_MAP),
        Field("roles", SetOf(RefTo("role")), RUNTIME, "midnight-ride",
            "The roles granted to this user or group; together they decide what its members may do.", default=()),
    ),
    messages=(
        Message("get_permissions_name_label",
            (
                Param("self", RefTo("subject"), "The subject to act on."),
            ), STRING_SET, "midnight-ride",
            "Lists the names of every permission the subject obtains through its roles.", least_role="read-only"),
        Message("remove_from_roles",
            (
                Param("self", RefTo("subject"), "The subject to act on."),
                Param("role", RefTo("role"), "The role to withdraw."),
            ), VOID, "midnight-ride",
            "Takes a role away from the subject; fails if it does not hold that role."),
        Message("add_to_roles",
            (
                Param("self", RefTo("subject"), "The subject to act on."),
                Param("role", RefTo("role"), "The role to grant."),
            ), VOID, "midnight-ride",
            "Grants the subject another role; fails if it already has it."),
    ),
    constructor_role="pool-admin",
    destructor_role="pool-admin",
)
