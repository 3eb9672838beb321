"""The PVS_server class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Field, Message, Param
from domzero.idl.types import INT, NULL_REF, STRING, STRING_SET, VOID, RefTo

CLASS = Class(
    "PVS_server",
    "A Citrix Provisioning Services machine from which VMs stream their disks.",
    "ely",
    fields=(
        Field("uuid", STRING, RUNTIME, "ely",
            "Unique identifier, stable for the life of the object."),
        Field("addresses", STRING_SET, CONSTRUCTOR, "ely",
            "IPv4 addresses at which the provisioning server can be reached.", default=()),
        Field("first_port", INT, CONSTRUCTOR, "ely",
            "Lowest UDP port that the server uses for streaming.", default=0),
        Field("last_port", INT, CONSTRUCTOR, "ely",
            "Highest UDP port that the server uses for streaming.", default=0),
        Field("site", RefTo("PVS_site"), CONSTRUCTOR, "ely",
            "Site to which the provisioning server belongs.", default=NULL_REF),
    ),
    messages=(
        Message("forget",
            (
                Param("self", RefTo("PVS_server"), "The PVS_server to act on."),
            ), VOID, "ely",
            "Removes the server's record from its site without touching the server itself.",
            least_role="pool-operator"),
        Message("introduce",
            (
                Param("addresses", STRING_SET, "IPv4 addresses of the server."),
                Param("first_port", INT, "Lowest UDP port it accepts streaming on."),
                Param("last_port", INT, "Highest UDP port it accepts streaming on."),
                Param("site", RefTo("PVS_site"), "Site to which the server belongs."),
            ), RefTo("PVS_server"), "ely",
            "Adds a record for a provisioning server; fails if an address is invalid or already recorded.",
            least_role="pool-operator"),
    ),
)
