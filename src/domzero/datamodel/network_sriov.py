"""The network_sriov class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Enum, Field, Message, Param
from domzero.idl.types import BOOL, INT, NULL_REF, STRING, VOID, EnumOf, RefTo

CLASS = Class(
    "network_sriov",
    "SR-IOV set up on a network card, so that VMs can be given virtual functions of it directly.",
    "kolkata",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("physical_PIF", RefTo("PIF"), CONSTRUCTOR, "kolkata",
            "Card that supplies the virtual functions.", default=NULL_REF),
        Field("logical_PIF", RefTo("PIF"), CONSTRUCTOR, "kolkata",
            "Interface that represents the SR-IOV network on this host.", default=NULL_REF),
        Field("requires_reboot", BOOL, RUNTIME, "kolkata",
            "True if the host must be restarted before the configuration takes effect.", default=False),
        Field("configuration_mode", EnumOf("sriov_configuration_mode"), RUNTIME, "kolkata",
            "How virtual functions were switched on for the card.", default="unknown"),
    ),
    messages=(
        Message("get_remaining_capacity",
            (
                Param("self", RefTo("network_sriov"), "The network_sriov to act on."),
            ), INT, "kolkata",
            "Returns how many more VM interfaces could be given a virtual function on this network.",
            least_role="read-only"),
        Message("destroy",
            (
                Param("self", RefTo("network_sriov"), "The network_sriov to act on."),
            ), VOID, "kolkata",
            "Turns SR-IOV off for the card and removes its logical interface; a host restart may be needed.",
            least_role="pool-operator"),
        Message("create",
            (
                Param("pif", RefTo("PIF"), "Card on which to turn on SR-IOV."),
                Param("network", RefTo("network"), "Network that will offer the virtual functions to VMs."),
            ), RefTo("network_sriov"), "kolkata",
            "Turns SR-IOV on for a card and joins it to a network; a host restart may be needed.",
            least_role="pool-operator"),
    ),
    enums=(
        Enum("sriov_configuration_mode",
            "Ways of switching on a card's virtual functions.",
            {
                "sysfs": "Set through the kernel's sysfs files, usually without a restart.",
                "modprobe": "Set through options of the card's driver module, which may need a restart.",
                "manual": "Set by the administrator, outside the control of the server.",
                "unknown": "It is not known how the card must be configured.",
            }),
    ),
)
