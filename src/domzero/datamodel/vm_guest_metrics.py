"""The VM_guest_metrics class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Enum, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, DATETIME, STRING, STRING_MAP, EnumOf

CLASS = Class(
    "VM_guest_metrics",
    "Information a guest's own agent reports about its operating system, drivers and networks.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("os_version", STRING_MAP, RUNTIME, "rio",
            "Operating system details such as name, distribution and version numbers."),
        Field("PV_drivers_version", STRING_MAP, RUNTIME, "rio",
            "Version of the installed paravirtual drivers, by part such as major, minor, micro and build."),
        Field("PV_drivers_up_to_date", BOOL, RUNTIME, "rio",
            "True if paravirtual drivers are present; newer servers no longer compare their version.",
            deprecated="dundee"),
        Field("memory", STRING_MAP, RUNTIME, "rio",
            "Total and free memory as reported by the guest, in KiB; may be empty.",
            default=EMPTY_MAP, deprecated="george", removed="george"),
        Field("disks", STRING_MAP, RUNTIME, "rio",
            "Disk information reported by the guest; usually empty.",
            default=EMPTY_MAP, deprecated="orlando", removed="orlando"),
        Field("networks", STRING_MAP, RUNTIME, "rio",
            "Addresses the guest has, keyed by device and kind, for example 0/ip."),
        Field("other", STRING_MAP, RUNTIME, "rio",
            "Remaining agent facts, such as feature and platform announcements."),
        Field("last_updated", DATETIME, RUNTIME, "rio",
            "When the guest last reported a change, in UTC.", volatile=True),
        Field("other_config", STRING_MAP, RW, "orlando",
            "Free key and value pairs for clients.", default=EMPTY_MAP, setter_role="vm-admin"),
        Field("live", BOOL, RUNTIME, "orlando",
            "True while the guest keeps reporting; false once its updates have stopped for several minutes.",
            default=False),
        Field("can_use_hotplug_vbd", EnumOf("tristate_type"), RUNTIME, "dundee",
            "Whether the guest can have disks plugged and unplugged while running.", default="unspecified"),
        Field("can_use_hotplug_vif", EnumOf("tristate_type"), RUNTIME, "dundee",
            "Whether the guest can have network interfaces plugged and unplugged while running.",
            default="unspecified"),
        Field("PV_drivers_detected", BOOL, RUNTIME, "dundee",
            "True once at least one of the guest's devices is seen to use a paravirtual driver.", default=False),
    ),
    enums=(
        Enum("tristate_type",
            "An answer that may be unknown.",
            {
                "yes": "Known to be so.",
                "no": "Known not to be so.",
                "unspecified": "Not known, as nothing has been reported.",
            }),
    ),
)
