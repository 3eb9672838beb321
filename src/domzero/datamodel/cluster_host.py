"""The Cluster_host class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, DATETIME, NEVER, NULL_REF, STRING, STRING_MAP, VOID, EnumOf, MapOf, RefTo, SetOf

CLASS = Class(
    "Cluster_host",
    "Membership of one host in the storage cluster.",
    "kolkata",
    fields=(
        Field("uuid", STRING, RUNTIME, "kolkata",
            "Unique identifier, stable for the life of the object."),
        Field("cluster", RefTo("Cluster"), CONSTRUCTOR, "kolkata",
            "The cluster concerned.", default=NULL_REF),
        Field("host", RefTo("host"), CONSTRUCTOR, "kolkata",
            "The host concerned.", default=NULL_REF),
        Field("enabled", BOOL, RUNTIME, "kolkata",
            "True when clustering is meant to be active on the host.", default=False),
        Field("PIF", RefTo("PIF"), CONSTRUCTOR, "kolkata",
            "Interface through which the host takes part.", default=NULL_REF),
        Field("joined", BOOL, RUNTIME, "kolkata",
            "True once the host has completed joining the cluster.", default=True),
        Field("live", BOOL, RUNTIME, "24.3.0",
            "True while the cluster sees this host as alive.", default=False),
        Field("last_update_live", DATETIME, RUNTIME, "24.3.0",
            "When the liveness was last checked.", default=NEVER),
        Field("allowed_operations", SetOf(EnumOf("cluster_host_operation")), RUNTIME, "rio",
            "Operations that could be started on the membership now.", default=()),
        Field("current_operations", MapOf(STRING, EnumOf("cluster_host_operation")), RUNTIME, "rio",
            "Operations in progress on the membership, keyed by the task performing them.", default=EMPTY_MAP),
        Field("other_config", STRING_MAP, CONSTRUCTOR, "kolkata",
            "Free key/value pairs for clients.", default=EMPTY_MAP),
    ),
    messages=(
        Message("disable",
            (
                Param("self", RefTo("Cluster_host"), "The Cluster_host to act on."),
            ), VOID, "kolkata",
            "Stops clustering on the host while keeping its membership; refused while storage depends on it.",
            errors=("CLUSTER_STACK_IN_USE",), least_role="pool-operator"),
        Message("force_destroy",
            (
                Param("self", RefTo("Cluster_host"), "The Cluster_host to act on."),
            ), VOID, "kolkata",
            "Removes the host from the cluster even if it cannot leave cleanly.",
            errors=("CLUSTER_STACK_IN_USE",), least_role="pool-operator"),
        Message("enable",
            (
                Param("self", RefTo("Cluster_host"), "The Cluster_host to act on."),
            ), VOID, "kolkata",
            "Starts clustering on a member host; its interface must be plugged and protected from unplugging.",
            errors=("PIF_ALLOWS_UNPLUG", "REQUIRED_PIF_IS_UNPLUGGED",), least_role="pool-operator"),
        Message("destroy",
            (
                Param("self", RefTo("Cluster_host"), "The Cluster_host to act on."),
            ), VOID, "kolkata",
            "Makes the host leave the cluster; refused if it is the last member or storage depends on it.",
            errors=("CLUSTERING_DISABLED", "CLUSTER_HOST_IS_LAST", "CLUSTER_STACK_IN_USE",),
            least_role="pool-operator"),
        Message("create",
            (
                Param("cluster", RefTo("Cluster"), "The cluster to join."),
                Param("host", RefTo("host"), "The host to add."),
                Param("pif", RefTo("PIF"), "The host's interface for cluster traffic."),
            ), RefTo("Cluster_host"), "kolkata",
            "Adds a host to an existing cluster; at least one current member must be reachable.",
            errors=("NO_CLUSTER_HOSTS_REACHABLE", "PIF_NOT_ATTACHED_TO_HOST",), least_role="pool-operator"),
    ),
    enums=(
        Enum("cluster_host_operation",
            "Operations on a cluster membership that can exclude one another.",
            {
                "enable": "Clustering is, or may be, started on the host.",
                "disable": "Clustering is, or may be, stopped on the host.",
                "destroy": "The host is, or may be, removed from the cluster.",
            }),
    ),
)
