"""The auth class."""

from __future__ import annotations

from domzero.idl.model import Class, Durability, Message, Param
from domzero.idl.types import STRING, STRING_MAP, STRING_SET

CLASS = Class(
    "auth",
    "Look-ups of users and groups in the external directory service the pool is joined to.",
    "george",
    fields=(

    ),
    messages=(
        Message("get_group_membership",
            (
                Param("subject_identifier", STRING, "Directory identifier of the user or group."),
            ), STRING_SET, "george",
            "Lists the identifiers of all groups a user or group is in, including those reached through nested "
            "groups.", least_role="read-only", asynchronous=False),
        Message("get_subject_information_from_identifier",
            (
                Param("subject_identifier", STRING, "Directory identifier to look up."),
            ), STRING_MAP, "george",
            "Fetches what the directory knows about a user or group, such as its names, as key/value pairs.",
            least_role="read-only", asynchronous=False),
        Message("get_subject_identifier",
            (
                Param("subject_name", STRING, "User or group name as written in the directory."),
            ), STRING, "george",
            "Turns a user or group name into its directory identifier; fails if the directory cannot resolve it.",
            least_role="read-only", asynchronous=False),
    ),
    durability=Durability.NONE,
    has_getters=False,
    has_get_all=False,
    emits_events=False,
)
