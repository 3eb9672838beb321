"""The console class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Enum, Field
from domzero.idl.types import STRING, STRING_MAP, EnumOf, RefTo

CLASS = Class(
    "console",
    "A way of seeing and controlling a running VM, by text or graphics.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("protocol", EnumOf("console_protocol"), RUNTIME, "rio",
            "What the console speaks once a connection has been made."),
        Field("location", STRING, RUNTIME, "rio",
            "Address to connect to for this console; it points at the host on which the VM is running."),
        Field("VM", RefTo("VM"), RUNTIME, "rio",
            "Virtual machine that the console displays."),
        Field("other_config", STRING_MAP, RW, "rio",
            "Free-form keys for use by administrators and tools.", setter_role="vm-admin"),
    ),
    enums=(
        Enum("console_protocol",
            "Languages that a console connection may speak.",
            {
                "vt100": "A text terminal carried as a plain stream of characters.",
                "rfb": "A graphical screen shared by the remote framebuffer protocol, as used by VNC.",
                "rdp":
                    "A Windows remote desktop served by the guest itself; it is not carried through the console "
                    "address.",
            }),
    ),
    constructor_role="vm-admin",
    destructor_role="vm-admin",
)
