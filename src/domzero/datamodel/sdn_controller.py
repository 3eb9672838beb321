"""The SDN_controller class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Enum, Field, Message, Param
from domzero.idl.types import INT, STRING, VOID, EnumOf, RefTo

CLASS = Class(
    "SDN_controller",
    "A software-defined-network controller that manages the pool's virtual switches.",
    "falcon",
    fields=(
        Field("uuid", STRING, RUNTIME, "falcon",
            "Unique identifier, stable for the life of the object."),
        Field("protocol", EnumOf("sdn_controller_protocol"), CONSTRUCTOR, "falcon",
            "Which side opens the connection between switches and controller.", default="ssl"),
        Field("address", STRING, CONSTRUCTOR, "falcon",
            "IP address of the controller; empty when the switches wait for it to connect.", default=""),
        Field("port", INT, CONSTRUCTOR, "falcon",
            "TCP port used for the connection.", default=0),
    ),
    messages=(
        Message("forget",
            (
                Param("self", RefTo("SDN_controller"), "The SDN_controller to act on."),
            ), VOID, "falcon",
            "Detaches the pool's virtual switches from the controller and deletes its record.",
            least_role="pool-operator"),
        Message("introduce",
            (
                Param("protocol", EnumOf("sdn_controller_protocol"), "Which side opens the connection."),
                Param("address", STRING, "IP address of the controller; left empty when the switches listen."),
                Param("port", INT, "TCP port to connect to or listen on."),
            ), RefTo("SDN_controller"), "falcon",
            "Attaches the virtual switches of all hosts to a controller.", least_role="pool-operator"),
    ),
    enums=(
        Enum("sdn_controller_protocol",
            "How switches and controller get in touch; both ways are encrypted.",
            {
                "ssl": "The switches connect out to the controller.",
                "pssl": "The switches listen for the controller to connect.",
            }),
    ),
)
