"""The Bond class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, INT, NULL_REF, STRING, STRING_MAP, VOID, EnumOf, RefTo, SetOf

CLASS = Class(
    "Bond",
    "Several network cards of one host joined together to act as a single, more resilient interface.",
    "miami",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("master", RefTo("PIF"), CONSTRUCTOR, "miami",
            "Interface that represents the bond as a whole, such as bond0.", default=NULL_REF),
        Field("slaves", SetOf(RefTo("PIF")), RUNTIME, "miami",
            "Network cards that make up the bond.", inverse="PIF.bond_slave_of"),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
        Field("primary_slave", RefTo("PIF"), RUNTIME, "boston",
            "Member from which the bond took its IP settings, and normally its hardware address.", default=NULL_REF),
        Field("mode", EnumOf("bond_mode"), RUNTIME, "boston",
            "How traffic is shared among the members.", default="balance-slb"),
        Field("properties", STRING_MAP, RUNTIME, "tampa",
            "Extra settings of the bond by name, such as the LACP hashing method.", default=EMPTY_MAP),
        Field("links_up", INT, RUNTIME, "tampa",
            "Number of members that have a live link.", default=0),
        Field("auto_update_mac", BOOL, RUNTIME, "quebec",
            "True if the bond's hardware address follows its primary member; false if it was chosen at creation.",
            default=True),
    ),
    messages=(
        Message("set_property",
            (
                Param("self", RefTo("Bond"), "The Bond to act on."),
                Param("name", STRING, "Name of the bond setting to change."),
                Param("value", STRING, "Desired value of the setting."),
            ), VOID, "tampa",
            "Changes one extra setting of the bond and applies it to the host.", least_role="pool-operator"),
        Message("set_mode",
            (
                Param("self", RefTo("Bond"), "The Bond to act on."),
                Param("value", EnumOf("bond_mode"), "Sharing method to use from now on."),
            ), VOID, "boston",
            "Changes how the bond shares traffic among its members, applying it to the host.",
            least_role="pool-operator"),
        Message("destroy",
            (
                Param("self", RefTo("Bond"), "The Bond to act on."),
            ), VOID, "miami",
            "Breaks the bond apart, giving its IP settings back to the primary member and its VLANs to that card.",
            least_role="pool-operator"),
        Message("create",
            (
                Param("network", RefTo("network"), "Network that the bonded interface should join."),
                Param("members", SetOf(RefTo("PIF")), "Cards to join, all belonging to the same host."),
                Param("MAC", STRING, "Hardware address for the bond; blank takes that of the primary member."),
                Param("mode", EnumOf("bond_mode"),
                      "How traffic should be shared among the members.", default="balance-slb"),
                Param("properties", STRING_MAP, "Extra settings for the bond, by name.", default=EMPTY_MAP),
            ), RefTo("Bond"), "miami",
            "Joins cards of one host into a bond; fails if they are on different hosts, already bonded or not "
            "physical.", least_role="pool-operator"),
    ),
    enums=(
        Enum("bond_mode",
            "Ways for a bond to share traffic among its members.",
            {
                "balance-slb": "Each VM's traffic keeps to one card, and the load is spread again from time to time.",
                "active-backup": "One card carries everything, and another takes over if it fails.",
                "lacp": "Traffic is spread by agreement with the switch, which must have LACP set up.",
            }),
    ),
)
