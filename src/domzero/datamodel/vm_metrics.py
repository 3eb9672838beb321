"""The VM_metrics class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP, STRING_SET, EnumOf, MapOf

CLASS = Class(
    "VM_metrics",
    "Measurements of a virtual machine taken from the hypervisor side, without help from the guest.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("memory_actual", INT, RUNTIME, "rio",
            "Memory the guest occupies at present, in bytes.", volatile=True),
        Field("VCPUs_number", INT, RUNTIME, "rio",
            "Number of virtual CPUs in use at present."),
        Field("VCPUs_utilisation", MapOf(INT, FLOAT), RUNTIME, "rio",
            "Load of each virtual CPU by number, as a fraction from 0 to 1.",
            default=EMPTY_MAP, deprecated="tampa", removed="tampa", volatile=True),
        Field("VCPUs_CPU", MapOf(INT, INT), RUNTIME, "rio",
            "Physical CPU on which each virtual CPU last ran, by number.", volatile=True),
        Field("VCPUs_params", STRING_MAP, RUNTIME, "rio",
            "Scheduler settings in force for the virtual CPUs."),
        Field("VCPUs_flags", MapOf(INT, STRING_SET), RUNTIME, "rio",
            "State words for each virtual CPU, such as online, blocked or running."),
        Field("state", STRING_SET, RUNTIME, "rio",
            "State words the hypervisor reports for the domain, such as running, blocked or paused."),
        Field("start_time", DATETIME, RUNTIME, "rio",
            "When the machine last booted, in UTC; the epoch if it never has."),
        Field("install_time", DATETIME, RUNTIME, "rio",
            "When the machine was created or installed, in UTC."),
        Field("last_updated", DATETIME, RUNTIME, "rio",
            "When these measurements were last refreshed, in UTC.", volatile=True),
        Field("other_config", STRING_MAP, RW, "orlando",
            "Free key and value pairs for clients.", default=EMPTY_MAP, setter_role="vm-admin"),
        Field("hvm", BOOL, RUNTIME, "ely",
            "True while the guest runs with full hardware virtualisation.", default=False),
        Field("nested_virt", BOOL, RUNTIME, "ely",
            "True while the guest runs with nested virtualisation, so it can host guests of its own.", default=False),
        Field("nomigrate", BOOL, RUNTIME, "ely",
            "True while the guest uses a feature that prevents suspending or moving it.", default=False),
        Field("current_domain_type", EnumOf("domain_type"), RUNTIME, "jura",
            "Kind of virtualisation the guest is running under now, or unspecified if it is not running.",
            default="unspecified"),
    ),
)
