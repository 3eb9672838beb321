"""The network class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, INT, STRING, STRING_MAP, STRING_SET, VOID, EnumOf, MapOf, RefTo, SetOf

CLASS = Class(
    "network",
    "A virtual network connecting VMs to each other and, where it has PIFs, to the outside.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "rio",
            "Short name shown for the network; names need not be unique.", default="", setter_role="pool-operator"),
        Field("name_description", STRING, RW, "rio",
            "Longer human-readable notes about the network.", default="", setter_role="pool-operator"),
        Field("allowed_operations", SetOf(EnumOf("network_operations")), RUNTIME, "rio",
            "Operations that could be started on the network at this moment.", default=()),
        Field("current_operations", MapOf(STRING, EnumOf("network_operations")), RUNTIME, "rio",
            "Operations now in progress on the network, keyed by the reference of the task running each.",
            default=EMPTY_MAP),
        Field("VIFs", SetOf(RefTo("VIF")), RUNTIME, "rio",
            "VM network interfaces that are joined to this network.", inverse="VIF.network"),
        Field("PIFs", SetOf(RefTo("PIF")), RUNTIME, "rio",
            "Host interfaces, at most one per host, that join this network to the outside; none makes it private.",
            inverse="PIF.network"),
        Field("MTU", INT, RW, "midnight-ride",
            "Largest packet the network carries, in bytes; normally 1500.", default=1500, setter_role="vm-admin"),
        Field("other_config", STRING_MAP, RW, "rio",
            "Free-form keys; some affect configuration, such as static-routes or ethtool settings, at the next "
            "plug.", setter_role="pool-operator"),
        Field("bridge", STRING, CONSTRUCTOR, "rio",
            "Name of the bridge that implements the network on each host, such as xenbr0.", default=""),
        Field("managed", BOOL, CONSTRUCTOR, "falcon",
            "True if the server creates and removes the bridge itself; false if the bridge is set up by other "
            "means.", default=True),
        Field("blobs", MapOf(STRING, RefTo("blob")), RUNTIME, "orlando",
            "Named binary attachments stored alongside the network record.", default=EMPTY_MAP),
        Field("tags", STRING_SET, RW, "orlando",
            "Labels attached by users to group and search for networks.", default=(), setter_role="vm-operator"),
        Field("default_locking_mode", EnumOf("network_default_locking_mode"), RUNTIME, "tampa",
            "How traffic is filtered for VIFs that follow the network's own setting.", default="unlocked"),
        Field("assigned_ips", MapOf(RefTo("VIF"), STRING), RUNTIME, "creedence",
            "Addresses handed out to VIFs on networks where the host assigns them.", default=EMPTY_MAP),
        Field("purpose", SetOf(EnumOf("network_purpose")), RUNTIME, "inverness",
            "Special services for which this network may be used, such as disk export over NBD.", default=()),
    ),
    messages=(
        Message("remove_purpose",
            (
                Param("self", RefTo("network"), "The network to act on."),
                Param("value", EnumOf("network_purpose"), "Purpose that should no longer apply."),
            ), VOID, "inverness",
            "Withdraws a special purpose from the network; does nothing if it was not set."),
        Message("add_purpose",
            (
                Param("self", RefTo("network"), "The network to act on."),
                Param("value", EnumOf("network_purpose"), "Purpose the network should also serve."),
            ), VOID, "inverness",
            "Gives the network a special purpose; fails if it conflicts with one already in use.",
            errors=("NETWORK_INCOMPATIBLE_PURPOSES",)),
        Message("set_default_locking_mode",
            (
                Param("network", RefTo("network"), "The network to act on."),
                Param("value", EnumOf("network_default_locking_mode"), "Filtering to apply by default."),
            ), VOID, "tampa",
            "Sets how traffic is filtered for VIFs without a mode of their own; refused while any affected VIF is "
            "attached.", least_role="pool-operator"),
        Message("create_new_blob",
            (
                Param("network", RefTo("network"), "The network to act on."),
                Param("name", STRING, "Name under which the attachment will appear."),
                Param("mime_type", STRING, "Media type of the contents; blank means application/octet-stream."),
                Param("public", BOOL, "True to let anyone download the attachment without logging in."),
            ), RefTo("blob"), "orlando",
            "Adds an empty named attachment to the network, to be filled by an upload over HTTP.",
            least_role="pool-operator"),
    ),
    enums=(
        Enum("network_operations",
            "Actions that can be permitted or in progress on a network.",
            {
                "attaching": "Bringing the network up on a host so that interfaces can join it.",
            }),
        Enum("network_default_locking_mode",
            "Traffic filtering applied to VIFs that do not choose their own.",
            {
                "unlocked": "All traffic passes without any filtering.",
                "disabled": "No traffic at all is allowed through.",
            }),
        Enum("network_purpose",
            "Special services a network may be allowed to carry.",
            {
                "nbd": "Reading of disks over NBD protected by TLS.",
                "insecure_nbd":
                    "Reading of disks over NBD without encryption; cannot be combined with the protected kind.",
            }),
    ),
    has_get_by_name_label=True,
    constructor_role="vm-admin",
    destructor_role="vm-admin",
)
