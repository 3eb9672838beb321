"""The DR_task class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, Class, Field, Message, Param
from domzero.idl.types import STRING, STRING_MAP, STRING_SET, VOID, RefTo, SetOf

CLASS = Class(
    "DR_task",
    "A disaster-recovery session that temporarily attaches replicated storage to look for recoverable VMs.",
    "boston",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("introduced_SRs", SetOf(RefTo("SR")), RUNTIME, "rio",
            "Storage repositories this session attached to the pool.", inverse="SR.introduced_by"),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("DR_task"), "The DR_task to act on."),
            ), VOID, "boston",
            "Ends the session, detaching and forgetting the storage it attached that is not now in use by VMs.",
            least_role="pool-operator"),
        Message("create",
            (
                Param("type", STRING, "Storage type to look for, such as lvmoiscsi."),
                Param("device_config", STRING_MAP,
                      "Connection settings of the storage, as when creating a repository."),
                Param("whitelist", STRING_SET, "UUIDs of the repositories that may be attached."),
            ), RefTo("DR_task"), "boston",
            "Attaches replicated storage found with the given settings so that the VMs on it can be listed and "
            "recovered.", least_role="pool-operator"),
    ),
)
