"""The pool_update class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, INT, STRING, STRING_MAP, VOID, EnumOf, RefTo, SetOf

CLASS = Class(
    "pool_update",
    "An update package introduced to the pool from a disk image and installed host by host.",
    "ely",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, CONSTRUCTOR, "rio",
            "Name of the update.", default=""),
        Field("name_description", STRING, CONSTRUCTOR, "rio",
            "What the update changes or fixes.", default=""),
        Field("version", STRING, CONSTRUCTOR, "ely",
            "Version of the update.", default=""),
        Field("installation_size", INT, CONSTRUCTOR, "ely",
            "Disk space the update needs on a host, in bytes.", default=0),
        Field("key", STRING, CONSTRUCTOR, "ely",
            "Identity of the signing key that the update was made with.", default=""),
        Field("after_apply_guidance", SetOf(EnumOf("update_after_apply_guidance")), CONSTRUCTOR, "ely",
            "What must be restarted before the update takes effect.", default=()),
        Field("vdi", RefTo("VDI"), CONSTRUCTOR, "rio",
            "Disk holding the update's content; it may be gone once cleaned up."),
        Field("hosts", SetOf(RefTo("host")), RUNTIME, "ely",
            "Hosts on which the update is installed.", inverse="host.updates"),
        Field("other_config", STRING_MAP, RW, "inverness",
            "Free key/value pairs for clients.", default=EMPTY_MAP, setter_role="pool-operator"),
        Field("enforce_homogeneity", BOOL, CONSTRUCTOR, "inverness",
            "True when all hosts in the pool must have this update or none.", default=False),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("pool_update"), "The pool_update to act on."),
            ), VOID, "ely",
            "Removes the update from the pool; refused when it is installed on any host.",
            least_role="pool-operator"),
        Message("pool_clean",
            (
                Param("self", RefTo("pool_update"), "The pool_update to act on."),
            ), VOID, "ely",
            "Deletes the update's files from all hosts, keeping the record of where it is installed.",
            least_role="pool-operator"),
        Message("pool_apply",
            (
                Param("self", RefTo("pool_update"), "The pool_update to act on."),
            ), VOID, "ely",
            "Installs the update on every host that lacks it.", least_role="pool-operator"),
        Message("apply",
            (
                Param("self", RefTo("pool_update"), "The pool_update to act on."),
                Param("host", RefTo("host"), "The host to install it on."),
            ), VOID, "ely",
            "Installs the update on one host; fails if it is already there or its requirements are not met.",
            least_role="pool-operator"),
        Message("precheck",
            (
                Param("self", RefTo("pool_update"), "The pool_update to act on."),
                Param("host", RefTo("host"), "The host to check."),
            ), EnumOf("livepatch_status"), "ely",
            "Checks that the update could be installed on a host and tells whether it can take effect live.",
            least_role="pool-operator"),
        Message("introduce",
            (
                Param("vdi", RefTo("VDI"), "Disk containing the update package."),
            ), RefTo("pool_update"), "ely",
            "Registers the update found on a disk; fails if its signature is not trusted or it is already known.",
            least_role="pool-operator"),
    ),
    enums=(
        Enum("update_after_apply_guidance",
            "What to restart after installing an update.",
            {
                "restartHVM": "Fully virtualised VMs should be restarted.",
                "restartPV": "Paravirtualised VMs should be restarted.",
                "restartHost": "The host should be rebooted.",
                "restartXAPI": "The management service should be restarted.",
            }),
        Enum("livepatch_status",
            "How far an update can be put into effect without a reboot.",
            {
                "ok_livepatch_complete": "Installable, and live patching puts all of it into effect.",
                "ok_livepatch_incomplete": "Installable, but part of it takes effect only after a restart.",
                "ok": "Installable, with no live patch available for it.",
            }),
    ),
    has_get_by_name_label=True,
)
