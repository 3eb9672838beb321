"""The VLAN class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import INT, NULL_REF, STRING, STRING_MAP, VOID, RefTo

CLASS = Class(
    "VLAN",
    "A link between an interface carrying tagged traffic and the interface presenting one tag's traffic untagged.",
    "miami",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("tagged_PIF", RefTo("PIF"), CONSTRUCTOR, "miami",
            "Interface underneath, on which frames travel with the tag.", default=NULL_REF),
        Field("untagged_PIF", RefTo("PIF"), RUNTIME, "miami",
            "Interface on top, on which the VLAN's frames appear without the tag.", default=NULL_REF),
        Field("tag", INT, CONSTRUCTOR, "miami",
            "VLAN number, from 0 to 4094.", default=-1),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("VLAN"), "The VLAN to act on."),
            ), VOID, "miami",
            "Removes the VLAN along with the untagged interface that was made for it.", least_role="pool-operator"),
        Message("create",
            (
                Param("tagged_PIF", RefTo("PIF"), "Interface that will carry the tagged traffic."),
                Param("tag", INT, "VLAN number to use, from 0 to 4094."),
                Param("network", RefTo("network"),
                      "Network that receives the untagged traffic; this host must not already have an interface on "
                      "it."),
            ), RefTo("VLAN"), "miami",
            "Makes a VLAN and its untagged interface; fails if the tag is invalid or already used on that card.",
            least_role="pool-operator"),
    ),
)
