"""The VUSB class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, STRING, STRING_MAP, VOID, EnumOf, MapOf, RefTo, SetOf

CLASS = Class(
    "VUSB",
    "A VM's claim on a USB device, met from a group of physical ones.",
    "inverness",
    fields=(
        Field("uuid", STRING, RUNTIME, "inverness",
            "Unique identifier, stable for the life of the object."),
        Field("allowed_operations", SetOf(EnumOf("vusb_operations")), RUNTIME, "rio",
            "Operations that could be started on the device at this moment.", default=()),
        Field("current_operations", MapOf(STRING, EnumOf("vusb_operations")), RUNTIME, "rio",
            "Operations now in progress on the device, keyed by the reference of the task running each.",
            default=EMPTY_MAP),
        Field("VM", RefTo("VM"), RUNTIME, "inverness",
            "Virtual machine that the device is meant for."),
        Field("USB_group", RefTo("USB_group"), RUNTIME, "inverness",
            "Group from which the physical device comes."),
        Field("other_config", STRING_MAP, RW, "inverness",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP),
        Field("currently_attached", BOOL, RUNTIME, "rio",
            "True while the device is connected to its running VM.", default=False),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("VUSB"), "The VUSB to act on."),
            ), VOID, "inverness",
            "Removes the virtual USB device from its VM; it must first be detached."),
        Message("unplug",
            (
                Param("self", RefTo("VUSB"), "The VUSB to act on."),
            ), VOID, "inverness",
            "Takes the USB device away from its running VM, returning it to the host."),
        Message("create",
            (
                Param("VM", RefTo("VM"), "Virtual machine to be given the device."),
                Param("USB_group", RefTo("USB_group"), "Group from which the physical device comes."),
                Param("other_config", STRING_MAP, "Free-form keys to record with the device."),
            ), RefTo("VUSB"), "inverness",
            "Adds a virtual USB device to a VM; fails if the group is already in use by another one."),
    ),
    enums=(
        Enum("vusb_operations",
            "Actions that can be permitted or in progress on a virtual USB device.",
            {
                "attach": "Connecting the device as part of VM start.",
                "plug": "Attaching the device to a running VM.",
                "unplug": "Detaching the device from a running VM.",
            }),
    ),
)
