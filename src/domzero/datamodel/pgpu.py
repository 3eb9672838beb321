"""The PGPU class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, INT, NULL_REF, STRING, STRING_MAP, VOID, EnumOf, MapOf, RefTo, SetOf

CLASS = Class(
    "PGPU",
    "A physical graphics processor in a host, usable whole or shared by VMs.",
    "boston",
    fields=(
        Field("uuid", STRING, RUNTIME, "boston",
            "Unique identifier, stable for the life of the object."),
        Field("PCI", RefTo("PCI"), CONSTRUCTOR, "boston",
            "The host's PCI device for this graphics processor.", default=NULL_REF),
        Field("GPU_group", RefTo("GPU_group"), CONSTRUCTOR, "boston",
            "Group of interchangeable graphics processors to which it belongs.", default=NULL_REF),
        Field("host", RefTo("host"), RUNTIME, "boston",
            "Host in which the graphics processor is fitted.", default=NULL_REF),
        Field("other_config", STRING_MAP, RW, "boston",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
        Field("supported_VGPU_types", SetOf(RefTo("VGPU_type")), RUNTIME, "vgpu-tech-preview",
            "Kinds of virtual GPU that the hardware and its driver could provide."),
        Field("enabled_VGPU_types", SetOf(RefTo("VGPU_type")), RUNTIME, "vgpu-tech-preview",
            "Kinds of virtual GPU that the administrator allows here."),
        Field("resident_VGPUs", SetOf(RefTo("VGPU")), RUNTIME, "vgpu-tech-preview",
            "Virtual GPUs now running on this graphics processor.", inverse="VGPU.resident_on"),
        Field("supported_VGPU_max_capacities", MapOf(RefTo("VGPU_type"), INT), RUNTIME, "vgpu-productisation",
            "For each supported kind, how many virtual GPUs fit when the processor is otherwise empty.",
            default=EMPTY_MAP),
        Field("dom0_access", EnumOf("pgpu_dom0_access"), RUNTIME, "cream",
            "Whether the host's own control domain can use the device, now or after a restart.", default="enabled"),
        Field("is_system_display_device", BOOL, RUNTIME, "cream",
            "True if the host shows its own console on this device.", default=False),
        Field("compatibility_metadata", STRING_MAP, RUNTIME, "inverness",
            "Driver data used to judge whether a VM using the device could migrate to another host.",
            default=EMPTY_MAP),
    ),
    messages=(
        Message("disable_dom0_access",
            (
                Param("self", RefTo("PGPU"), "The PGPU to act on."),
            ), EnumOf("pgpu_dom0_access"), "cream",
            "Hides the device from the control domain from the next host restart, freeing it for VMs; returns the "
            "new state.", least_role="pool-operator"),
        Message("enable_dom0_access",
            (
                Param("self", RefTo("PGPU"), "The PGPU to act on."),
            ), EnumOf("pgpu_dom0_access"), "cream",
            "Gives the device back to the control domain from the next host restart; returns the new state.",
            least_role="pool-operator"),
        Message("get_remaining_capacity",
            (
                Param("self", RefTo("PGPU"), "The PGPU to act on."),
                Param("vgpu_type", RefTo("VGPU_type"), "Kind of virtual GPU to count."),
            ), INT, "vgpu-tech-preview",
            "Returns how many more virtual GPUs of one kind could start on this processor at present.",
            least_role="read-only"),
        Message("set_GPU_group",
            (
                Param("self", RefTo("PGPU"), "The PGPU to act on."),
                Param("value", RefTo("GPU_group"), "Group the processor should join."),
            ), VOID, "vgpu-tech-preview",
            "Moves the processor to another group; refused while virtual GPUs are running on it.",
            least_role="pool-operator"),
        Message("set_enabled_VGPU_types",
            (
                Param("self", RefTo("PGPU"), "The PGPU to act on."),
                Param("value", SetOf(RefTo("VGPU_type")), "Complete list of kinds to allow."),
            ), VOID, "vgpu-tech-preview",
            "Replaces the list of allowed virtual GPU kinds; each must be supported, and kinds in use cannot be "
            "dropped.", least_role="pool-operator"),
        Message("remove_enabled_VGPU_types",
            (
                Param("self", RefTo("PGPU"), "The PGPU to act on."),
                Param("value", RefTo("VGPU_type"), "Kind that is no longer allowed."),
            ), VOID, "vgpu-tech-preview",
            "Forbids one kind of virtual GPU on this processor; refused while one of that kind is running.",
            least_role="pool-operator"),
        Message("add_enabled_VGPU_types",
            (
                Param("self", RefTo("PGPU"), "The PGPU to act on."),
                Param("value", RefTo("VGPU_type"), "Kind to allow as well."),
            ), VOID, "vgpu-tech-preview",
            "Allows one more kind of virtual GPU on this processor; it must be supported by the hardware.",
            least_role="pool-operator"),
    ),
    enums=(
        Enum("pgpu_dom0_access",
            "Whether the control domain can use a graphics processor.",
            {
                "enabled": "The control domain can use the device.",
                "disable_on_reboot": "The device is in use by the control domain until the next host restart.",
                "disabled": "The control domain cannot use the device, so VMs may have it.",
                "enable_on_reboot": "The control domain will regain the device at the next host restart.",
            }),
    ),
)
