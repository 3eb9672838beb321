"""The pool_patch class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, INT, NULL_REF, STRING, STRING_MAP, VOID, EnumOf, RefTo, SetOf

CLASS = Class(
    "pool_patch",
    "An older-style patch uploaded to the pool; superseded by pool_update.",
    "miami",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, CONSTRUCTOR, "rio",
            "Name of the patch.", default=""),
        Field("name_description", STRING, CONSTRUCTOR, "rio",
            "What the patch changes or fixes.", default=""),
        Field("version", STRING, CONSTRUCTOR, "miami",
            "Version of the patch.", default=""),
        Field("size", INT, RUNTIME, "miami",
            "Size of the patch file in bytes.", default=0),
        Field("pool_applied", BOOL, RUNTIME, "miami",
            "True once the patch has been installed on every host that should have it.", default=False),
        Field("host_patches", SetOf(RefTo("host_patch")), RUNTIME, "miami",
            "One record per host on which the patch is installed.", inverse="host_patch.pool_patch"),
        Field("after_apply_guidance", SetOf(EnumOf("after_apply_guidance")), RUNTIME, "miami",
            "What must be restarted before the patch takes effect.", default=()),
        Field("pool_update", RefTo("pool_update"), CONSTRUCTOR, "ely",
            "The newer-style update this patch record stands for, if any.", default=NULL_REF),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free key/value pairs for clients.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
    messages=(
        Message("clean_on_host",
            (
                Param("self", RefTo("pool_patch"), "The pool_patch to act on."),
                Param("host", RefTo("host"), "The host to clean."),
            ), VOID, "tampa",
            "Deletes the uploaded patch file from one host, leaving the record of the installation.",
            least_role="pool-operator", deprecated="ely"),
        Message("destroy",
            (
                Param("self", RefTo("pool_patch"), "The pool_patch to act on."),
            ), VOID, "miami",
            "Deletes the patch file and record from the pool; refused if it is installed on any host.",
            least_role="pool-operator", deprecated="ely"),
        Message("pool_clean",
            (
                Param("self", RefTo("pool_patch"), "The pool_patch to act on."),
            ), VOID, "tampa",
            "Deletes the uploaded patch file from all hosts, leaving the record of the installation.",
            least_role="pool-operator", deprecated="ely"),
        Message("clean",
            (
                Param("self", RefTo("pool_patch"), "The pool_patch to act on."),
            ), VOID, "miami",
            "Deletes the uploaded patch file from the server, leaving the record of the installation.",
            least_role="pool-operator", deprecated="ely"),
        Message("precheck",
            (
                Param("self", RefTo("pool_patch"), "The pool_patch to act on."),
                Param("host", RefTo("host"), "The host to check."),
            ), STRING, "miami",
            "Runs the patch's own checks on a host without installing it, and fails if a requirement is not met.",
            least_role="pool-operator", deprecated="ely"),
        Message("pool_apply",
            (
                Param("self", RefTo("pool_patch"), "The pool_patch to act on."),
            ), VOID, "miami",
            "Installs the patch on every host in turn that does not have it yet.",
            least_role="pool-operator", deprecated="ely"),
        Message("apply",
            (
                Param("self", RefTo("pool_patch"), "The pool_patch to act on."),
                Param("host", RefTo("host"), "The host to install it on."),
            ), STRING, "miami",
            "Installs the patch on one host and returns its output; fails if it is already installed there.",
            least_role="pool-operator", deprecated="ely"),
    ),
    enums=(
        Enum("after_apply_guidance",
            "What to restart after installing a patch.",
            {
                "restartHVM": "Fully virtualised VMs should be restarted.",
                "restartPV": "Paravirtualised VMs should be restarted.",
                "restartHost": "The host should be rebooted.",
                "restartXAPI": "The management service should be restarted.",
            }),
    ),
    deprecated="ely",
    has_get_by_name_label=True,
)
