"""The PCI class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import NULL_REF, STRING, STRING_MAP, RefTo, SetOf

CLASS = Class(
    "PCI",
    "A device on a host's PCI bus, such as a network card or graphics card.",
    "boston",
    fields=(
        Field("uuid", STRING, RUNTIME, "boston",
            "Unique identifier, stable for the life of the object."),
        Field("class_name", STRING, CONSTRUCTOR, "boston",
            "Kind of device in words, such as a display controller.", default=""),
        Field("vendor_name", STRING, CONSTRUCTOR, "boston",
            "Manufacturer of the device, in words.", default=""),
        Field("device_name", STRING, CONSTRUCTOR, "boston",
            "Model of the device, in words.", default=""),
        Field("host", RefTo("host"), CONSTRUCTOR, "boston",
            "Host in which the device is fitted.", default=NULL_REF),
        Field("pci_id", STRING, CONSTRUCTOR, "boston",
            "Position of the device on the host's PCI bus, as domain, bus, slot and function.", default=""),
        Field("dependencies", SetOf(RefTo("PCI")), RUNTIME, "boston",
            "Devices that must be handed to a VM together with this one."),
        Field("other_config", STRING_MAP, RW, "boston",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
        Field("subsystem_vendor_name", STRING, CONSTRUCTOR, "clearwater-whetstone",
            "Maker of the board that carries the device, in words.", default=""),
        Field("subsystem_device_name", STRING, CONSTRUCTOR, "clearwater-whetstone",
            "Model of the board that carries the device, in words.", default=""),
        Field("driver_name", STRING, CONSTRUCTOR, "kolkata",
            "Name of the kernel driver in use for the device on its host.", default=""),
    ),
)
