"""The GPU_group class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import INT, STRING, STRING_MAP, STRING_SET, VOID, EnumOf, RefTo, SetOf

CLASS = Class(
    "GPU_group",
    "A set of like graphics processors across the pool, from which VMs are given virtual GPUs.",
    "boston",
    fields=(
        Field("uuid", STRING, RUNTIME, "boston",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "boston",
            "Short name shown for the group.", default="", setter_role="pool-operator"),
        Field("name_description", STRING, RW, "boston",
            "Longer human-readable notes about the group.", default="", setter_role="pool-operator"),
        Field("PGPUs", SetOf(RefTo("PGPU")), RUNTIME, "boston",
            "Physical graphics processors that belong to the group.", inverse="PGPU.GPU_group"),
        Field("VGPUs", SetOf(RefTo("VGPU")), RUNTIME, "boston",
            "Virtual GPUs that draw on the group.", inverse="VGPU.GPU_group"),
        Field("GPU_types", STRING_SET, RUNTIME, "boston",
            "Vendor and device identifiers of the hardware found in the group.", default=()),
        Field("other_config", STRING_MAP, RW, "boston",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
        Field("allocation_algorithm", EnumOf("allocation_algorithm"), RW, "vgpu-tech-preview",
            "How virtual GPUs are placed on the processors in the group.",
            default="depth_first", setter_role="pool-operator"),
        Field("supported_VGPU_types", SetOf(RefTo("VGPU_type")), RUNTIME, "vgpu-productisation",
            "Kinds of virtual GPU that at least one member can provide."),
        Field("enabled_VGPU_types", SetOf(RefTo("VGPU_type")), RUNTIME, "vgpu-productisation",
            "Kinds of virtual GPU that are allowed on at least one member."),
    ),
    messages=(
        Message("get_remaining_capacity",
            (
                Param("self", RefTo("GPU_group"), "The GPU_group to act on."),
                Param("vgpu_type", RefTo("VGPU_type"), "Kind of virtual GPU to count."),
            ), INT, "vgpu-tech-preview",
            "Returns how many more virtual GPUs of one kind could start across the group at present.",
            least_role="read-only"),
        Message("destroy",
            (
                Param("self", RefTo("GPU_group"), "The GPU_group to act on."),
            ), VOID, "boston",
            "Deletes the group; refused while it still has physical or virtual GPUs.", least_role="pool-operator"),
        Message("create",
            (
                Param("name_label", STRING, "Name for the new group."),
                Param("name_description", STRING, "Description for the new group."),
                Param("other_config", STRING_MAP, "Free-form keys to record with the group."),
            ), RefTo("GPU_group"), "boston",
            "Makes an empty group, to which physical graphics processors can then be moved.",
            least_role="pool-operator"),
    ),
    enums=(
        Enum("allocation_algorithm",
            "Strategies for choosing a physical graphics processor for a new virtual GPU.",
            {
                "breadth_first": "Spreads virtual GPUs over as many processors as possible, for best performance.",
                "depth_first": "Fills one processor before using the next, to leave others free.",
            }),
    ),
    has_get_by_name_label=True,
)
