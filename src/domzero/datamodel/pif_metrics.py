"""The PIF_metrics class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP

CLASS = Class(
    "PIF_metrics",
    "Link state, traffic figures and hardware details of one host network interface.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("io_read_kbs", FLOAT, RUNTIME, "rio",
            "Rate at which data is read through the interface, in KiB/s.",
            default=0.0, deprecated="tampa", removed="tampa", volatile=True),
        Field("io_write_kbs", FLOAT, RUNTIME, "rio",
            "Rate at which data is written through the interface, in KiB/s.",
            default=0.0, deprecated="tampa", removed="tampa", volatile=True),
        Field("carrier", BOOL, RUNTIME, "rio",
            "True if the card detects a live link, normally meaning the cable is connected."),
        Field("vendor_id", STRING, RUNTIME, "rio",
            "Number identifying the card's manufacturer, as read from the PCI bus."),
        Field("vendor_name", STRING, RUNTIME, "rio",
            "Manufacturer of the card, in words."),
        Field("device_id", STRING, RUNTIME, "rio",
            "Number identifying the card's model, as read from the PCI bus."),
        Field("device_name", STRING, RUNTIME, "rio",
            "Model of the card, in words."),
        Field("speed", INT, RUNTIME, "rio",
            "Link speed in Mbit/s; only meaningful when there is a carrier."),
        Field("duplex", BOOL, RUNTIME, "rio",
            "True if the link can send and receive at the same time; only meaningful with a carrier."),
        Field("pci_bus_path", STRING, RUNTIME, "rio",
            "Position of the card on the host's PCI bus."),
        Field("last_updated", DATETIME, RUNTIME, "rio",
            "When these figures were last refreshed.", volatile=True),
        Field("other_config", STRING_MAP, RW, "orlando",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
)
