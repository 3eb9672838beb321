"""The PVS_proxy class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Enum, Field, Message, Param
from domzero.idl.types import BOOL, NULL_REF, STRING, VOID, EnumOf, RefTo

CLASS = Class(
    "PVS_proxy",
    "A cache in the host that speeds up streaming of a provisioned disk to one VM interface.",
    "ely",
    fields=(
        Field("uuid", STRING, RUNTIME, "ely",
            "Unique identifier, stable for the life of the object."),
        Field("site", RefTo("PVS_site"), CONSTRUCTOR, "ely",
            "Site whose streaming traffic the proxy caches.", default=NULL_REF),
        Field("VIF", RefTo("VIF"), CONSTRUCTOR, "ely",
            "VM interface through which the disk is streamed.", default=NULL_REF),
        Field("currently_attached", BOOL, RUNTIME, "ely",
            "True while the VM runs and its traffic passes through the proxy.", default=False),
        Field("status", EnumOf("pvs_proxy_status"), RUNTIME, "ely",
            "What the proxy is doing, or why it is not caching.", default="stopped"),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("PVS_proxy"), "The PVS_proxy to act on."),
            ), VOID, "ely",
            "Removes the proxy, so that the VM streams straight from the provisioning servers.",
            least_role="pool-operator"),
        Message("create",
            (
                Param("site", RefTo("PVS_site"), "Site from which the VM streams its disk."),
                Param("VIF", RefTo("VIF"), "Interface whose traffic should be cached."),
            ), RefTo("PVS_proxy"), "ely",
            "Sets up caching for a VM interface; fails unless it is the first interface, or if one exists already.",
            least_role="pool-operator"),
    ),
    enums=(
        Enum("pvs_proxy_status",
            "States of a provisioning proxy.",
            {
                "stopped": "The proxy is not running.",
                "initialised": "The proxy is set up but has not begun to cache anything.",
                "caching": "The proxy is caching disk data for the VM.",
                "incompatible_write_cache_mode":
                    "Caching is off because the disk's write-cache setting does not allow it.",
                "incompatible_protocol_version":
                    "Caching is off because the server speaks a protocol version the proxy cannot handle.",
            }),
    ),
)
