"""The PUSB class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, FLOAT, NULL_REF, STRING, STRING_MAP, VOID, RefTo

CLASS = Class(
    "PUSB",
    "A USB device plugged into a host, which can be handed to a VM.",
    "inverness",
    fields=(
        Field("uuid", STRING, RUNTIME, "inverness",
            "Unique identifier, stable for the life of the object."),
        Field("USB_group", RefTo("USB_group"), CONSTRUCTOR, "inverness",
            "Group through which the device is offered to VMs.", default=NULL_REF),
        Field("host", RefTo("host"), CONSTRUCTOR, "inverness",
            "Host into which the device is plugged.", default=NULL_REF),
        Field("path", STRING, CONSTRUCTOR, "inverness",
            "Port on the host where the device is plugged in, in bus notation.", default=""),
        Field("vendor_id", STRING, CONSTRUCTOR, "inverness",
            "Number identifying the device's manufacturer.", default=""),
        Field("vendor_desc", STRING, CONSTRUCTOR, "inverness",
            "Manufacturer of the device, in words.", default=""),
        Field("product_id", STRING, CONSTRUCTOR, "inverness",
            "Number identifying the device's model.", default=""),
        Field("product_desc", STRING, CONSTRUCTOR, "inverness",
            "Model of the device, in words.", default=""),
        Field("serial", STRING, CONSTRUCTOR, "inverness",
            "Serial number reported by the device; may be blank.", default=""),
        Field("version", STRING, CONSTRUCTOR, "inverness",
            "USB standard version the device declares.", default=""),
        Field("description", STRING, CONSTRUCTOR, "inverness",
            "Readable summary of the device, for display to users.", default=""),
        Field("passthrough_enabled", BOOL, RUNTIME, "inverness",
            "True if the device may be handed to a VM.", default=False),
        Field("other_config", STRING_MAP, RW, "inverness",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP),
        Field("speed", FLOAT, CONSTRUCTOR, "stockholm",
            "Speed at which the device communicates, in Mbit/s.", default=-1.0),
    ),
    messages=(
        Message("set_passthrough_enabled",
            (
                Param("self", RefTo("PUSB"), "The PUSB to act on."),
                Param("value", BOOL, "True to allow the device to be given to a VM."),
            ), VOID, "inverness",
            "Allows or forbids handing the device to a VM; forbidding is refused while a VM has it."),
        Message("scan",
            (
                Param("host", RefTo("host"), "Host whose USB ports should be examined."),
            ), VOID, "inverness",
            "Looks again at the USB ports of a host, adding new devices and dropping removed ones."),
    ),
)
