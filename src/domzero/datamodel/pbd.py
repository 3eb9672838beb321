"""The PBD class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, STRING, STRING_MAP, VOID, RefTo

CLASS = Class(
    "PBD",
    "A physical block device: the settings and state by which one host reaches one storage repository.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("host", RefTo("host"), CONSTRUCTOR, "rio",
            "The host that makes this connection."),
        Field("SR", RefTo("SR"), CONSTRUCTOR, "rio",
            "Storage repository that the connection leads to."),
        Field("device_config", STRING_MAP, CONSTRUCTOR, "rio",
            "Settings the driver needs on this host, such as server, path or device."),
        Field("currently_attached", BOOL, RUNTIME, "rio",
            "True while the host is connected and can use the repository's disks."),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
    ),
    messages=(
        Message("set_device_config",
            (
                Param("self", RefTo("PBD"), "The PBD to act on."),
                Param("value", STRING_MAP, "Complete set of settings to use from now on."),
            ), VOID, "miami",
            "Replaces the connection settings; only possible while the PBD is unplugged.",
            least_role="pool-operator"),
        Message("unplug",
            (
                Param("self", RefTo("PBD"), "The PBD to act on."),
            ), VOID, "rio",
            "Disconnects the host from the repository; refused while any of its disks are in use there.",
            least_role="pool-operator"),
        Message("plug",
            (
                Param("self", RefTo("PBD"), "The PBD to act on."),
            ), VOID, "rio",
            "Connects the host to the repository and makes its disks usable; does nothing if already connected.",
            errors=("SR_UNKNOWN_DRIVER",), least_role="pool-operator"),
    ),
    constructor_role="pool-operator",
    destructor_role="pool-operator",
)
