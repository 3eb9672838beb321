"""The VBD class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, INT, NULL_REF, STRING, STRING_MAP, STRING_SET, VOID, EnumOf, MapOf, RefTo, SetOf

CLASS = Class(
    "VBD",
    "A virtual block device: the drive slot that connects a VM to a disk, CD image or empty tray.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("allowed_operations", SetOf(EnumOf("vbd_operations")), RUNTIME, "rio",
            "Operations that could be started on the drive at this moment.", default=()),
        Field("current_operations", MapOf(STRING, EnumOf("vbd_operations")), RUNTIME, "rio",
            "Operations now in progress on the drive, keyed by the reference of the task running each.",
            default=EMPTY_MAP),
        Field("VM", RefTo("VM"), CONSTRUCTOR, "rio",
            "The virtual machine to which this drive belongs."),
        Field("VDI", RefTo("VDI"), CONSTRUCTOR, "rio",
            "Disk presented by the drive; null when a removable drive is empty."),
        Field("device", STRING, CONSTRUCTOR, "rio",
            "Name the guest knows the drive by, such as xvda; blank until it has been attached.", default=""),
        Field("userdevice", STRING, RW, "rio",
            "Position chosen for the drive, written as a number from zero; autodetect picks the lowest free one at "
            "creation.", setter_role="vm-admin"),
        Field("bootable", BOOL, RW, "rio",
            "True if the guest may boot from this drive.", setter_role="vm-admin"),
        Field("mode", EnumOf("vbd_mode"), CONSTRUCTOR, "rio",
            "Whether the guest may write to the disk or only read it; CD drives are always read-only."),
        Field("type", EnumOf("vbd_type"), RW, "rio",
            "How the drive appears to the guest: hard disk, CD drive or floppy drive.", setter_role="vm-admin"),
        Field("unpluggable", BOOL, RW, "miami",
            "True if the drive may be removed from the VM while it runs.", default=True, setter_role="vm-admin"),
        Field("storage_lock", BOOL, RUNTIME, "rio",
            "True if a lock was taken on the disk at storage level."),
        Field("empty", BOOL, CONSTRUCTOR, "rio",
            "True if a removable drive has no medium inserted."),
        Field("other_config", STRING_MAP, RW, "rio",
            "Free-form keys for use by administrators and tools.", setter_role="vm-admin"),
        Field("currently_attached", BOOL, CONSTRUCTOR, "rio",
            "True if the drive is connected to the VM, or will be when it is resumed.", default=False),
        Field("status_code", INT, RUNTIME, "rio",
            "Result code of the most recent attempt to attach the drive; zero means success."),
        Field("status_detail", STRING, RUNTIME, "rio",
            "Explanation that goes with the last attach result, if it failed."),
        Field("runtime_properties", STRING_MAP, RUNTIME, "rio",
            "Facts about the device that apply only while it is attached."),
        Field("qos_algorithm_type", STRING, RW, "rio",
            "Method used to limit or prioritise disk traffic, such as ionice; blank means none.",
            setter_role="vm-admin"),
        Field("qos_algorithm_params", STRING_MAP, RW, "rio",
            "Settings for the chosen traffic method; for ionice these are sched and class.", setter_role="vm-admin"),
        Field("qos_supported_algorithms", STRING_SET, RUNTIME, "rio",
            "Traffic methods that this drive could use."),
        Field("metrics", RefTo("VBD_metrics"), RUNTIME, "rio",
            "Traffic figures recorded for this drive.", default=NULL_REF, deprecated="tampa", removed="tampa"),
    ),
    messages=(
        Message("set_mode",
            (
                Param("self", RefTo("VBD"), "The VBD to act on."),
                Param("value", EnumOf("vbd_mode"), "Access to grant from the next start."),
            ), VOID, "rio",
            "Switches the drive between read-only and read-write; the VM must be halted.", least_role="vm-admin"),
        Message("assert_attachable",
            (
                Param("self", RefTo("VBD"), "The VBD to act on."),
            ), VOID, "rio",
            "Returns quietly if the drive could be attached now, and otherwise fails with the error plugging would "
            "give.", least_role="vm-admin"),
        Message("unplug_force",
            (
                Param("self", RefTo("VBD"), "The VBD to act on."),
            ), VOID, "rio",
            "Removes the drive from a running VM without waiting for the guest to let go; data may be lost.",
            least_role="vm-admin"),
        Message("unplug",
            (
                Param("self", RefTo("VBD"), "The VBD to act on."),
            ), VOID, "rio",
            "Asks the guest to release the drive and then removes it; fails if the guest refuses or it is not "
            "attached.", errors=("DEVICE_ALREADY_DETACHED", "DEVICE_DETACH_REJECTED",), least_role="vm-admin"),
        Message("plug",
            (
                Param("self", RefTo("VBD"), "The VBD to act on."),
            ), VOID, "rio",
            "Attaches the drive to its running VM straight away; fails if it is already attached or the disk is "
            "unavailable.", least_role="vm-admin"),
        Message("insert",
            (
                Param("vbd", RefTo("VBD"), "The VBD to act on."),
                Param("vdi", RefTo("VDI"), "CD image to place in the drive."),
            ), VOID, "rio",
            "Puts a disk image into an empty removable drive, at once if the VM is running.",
            errors=("VBD_NOT_EMPTY", "VBD_NOT_REMOVABLE_MEDIA",), least_role="vm-operator"),
        Message("eject",
            (
                Param("vbd", RefTo("VBD"), "The VBD to act on."),
            ), VOID, "rio",
            "Takes the medium out of a removable drive, leaving the drive empty.",
            errors=("VBD_IS_EMPTY", "VBD_NOT_REMOVABLE_MEDIA",), least_role="vm-operator"),
    ),
    enums=(
        Enum("vbd_operations",
            "Actions that can be permitted or in progress on a virtual drive.",
            {
                "attach": "Connecting the drive as part of VM start, or checking that this is possible.",
                "eject": "Taking the medium out of a removable drive.",
                "insert": "Putting a medium into an empty removable drive.",
                "plug": "Attaching the drive to a running VM.",
                "unplug": "Detaching the drive with the guest's agreement.",
                "unplug_force": "Detaching the drive without the guest's agreement.",
                "pause": "Holding back disk traffic so that the storage beneath can be changed.",
                "unpause": "Letting held-back disk traffic continue.",
            }),
        Enum("vbd_mode",
            "Access a guest has to the disk in a drive.",
            {
                "RO": "The guest can only read the disk.",
                "RW": "The guest can both read and write the disk.",
            }),
        Enum("vbd_type",
            "How a drive is presented to the guest.",
            {
                "CD": "A removable CD or DVD drive, always read-only.",
                "Disk": "A fixed hard disk that the guest may partition.",
                "Floppy": "A removable drive presented as a floppy disk.",
            }),
    ),
    constructor_role="vm-admin",
    destructor_role="vm-admin",
)
