"""The tunnel class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import NULL_REF, STRING, STRING_MAP, VOID, EnumOf, RefTo

CLASS = Class(
    "tunnel",
    "One host's end of a network carried between hosts inside ordinary IP packets.",
    "cowley",
    fields=(
        Field("uuid", STRING, RUNTIME, "cowley",
            "Unique identifier, stable for the life of the object."),
        Field("access_PIF", RefTo("PIF"), CONSTRUCTOR, "cowley",
            "Interface through which the tunnelled network is reached on this host.", default=NULL_REF),
        Field("transport_PIF", RefTo("PIF"), CONSTRUCTOR, "cowley",
            "Interface whose IP address carries the tunnel's packets.", default=NULL_REF),
        Field("status", STRING_MAP, RW, "cowley",
            "State of the tunnel as reported by its controller, including whether it is active.",
            default={"active": "false"}, setter_role="pool-operator"),
        Field("other_config", STRING_MAP, RW, "cowley",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
        Field("protocol", EnumOf("tunnel_protocol"), RW, "1.250.0",
            "How packets are wrapped for their journey between hosts.", default="gre", setter_role="pool-operator"),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("tunnel"), "The tunnel to act on."),
            ), VOID, "cowley",
            "Removes the tunnel along with the access interface that was made for it.", least_role="pool-operator"),
        Message("create",
            (
                Param("transport_PIF", RefTo("PIF"), "Interface that should carry the tunnel's packets."),
                Param("network", RefTo("network"), "Network to be carried through the tunnel."),
                Param("protocol", EnumOf("tunnel_protocol"), "Wrapping to use for the packets."),
            ), RefTo("tunnel"), "cowley",
            "Makes a tunnel and its access interface; needs Open vSwitch and a transport interface with an IP "
            "configuration.",
            errors=("IS_TUNNEL_ACCESS_PIF", "OPENVSWITCH_NOT_ACTIVE", "TRANSPORT_PIF_NOT_CONFIGURED",),
            least_role="pool-operator"),
    ),
    enums=(
        Enum("tunnel_protocol",
            "Ways of wrapping tunnelled packets.",
            {
                "gre": "Generic routing encapsulation, carried directly over IP.",
                "vxlan": "Virtual extensible LAN, which carries Ethernet frames over UDP.",
            }),
    ),
)
