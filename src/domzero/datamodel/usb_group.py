"""The USB_group class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import STRING, STRING_MAP, VOID, RefTo, SetOf

CLASS = Class(
    "USB_group",
    "A group of USB devices on hosts from which a VM's virtual USB device is supplied.",
    "inverness",
    fields=(
        Field("uuid", STRING, RUNTIME, "inverness",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "inverness",
            "Short name shown for the group.", default=""),
        Field("name_description", STRING, RW, "inverness",
            "Longer human-readable notes about the group.", default=""),
        Field("PUSBs", SetOf(RefTo("PUSB")), RUNTIME, "inverness",
            "Physical USB devices in the group.", inverse="PUSB.USB_group"),
        Field("VUSBs", SetOf(RefTo("VUSB")), RUNTIME, "inverness",
            "Virtual USB devices that draw on the group.", inverse="VUSB.USB_group"),
        Field("other_config", STRING_MAP, RW, "inverness",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("USB_group"), "The USB_group to act on."),
            ), VOID, "inverness",
            "Deletes the group; refused while it still has physical or virtual USB devices."),
        Message("create",
            (
                Param("name_label", STRING, "Name for the new group."),
                Param("name_description", STRING, "Description for the new group."),
                Param("other_config", STRING_MAP, "Free-form keys to record with the group."),
            ), RefTo("USB_group"), "inverness",
            "Makes an empty group for USB devices."),
    ),
    has_get_by_name_label=True,
)
