"""The VGPU_type class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Enum, Field
from domzero.idl.types import BOOL, INT, STRING, EnumOf, RefTo, SetOf

CLASS = Class(
    "VGPU_type",
    "A kind of virtual GPU, giving the memory, displays and hardware technology it offers.",
    "vgpu-tech-preview",
    fields=(
        Field("uuid", STRING, RUNTIME, "vgpu-tech-preview",
            "Unique identifier, stable for the life of the object."),
        Field("vendor_name", STRING, CONSTRUCTOR, "vgpu-tech-preview",
            "Company that makes the underlying graphics hardware.", default=""),
        Field("model_name", STRING, CONSTRUCTOR, "vgpu-tech-preview",
            "Name of this kind of virtual GPU, as the vendor calls it.", default=""),
        Field("framebuffer_size", INT, CONSTRUCTOR, "vgpu-tech-preview",
            "Graphics memory given to the guest, in bytes.", default=0),
        Field("max_heads", INT, CONSTRUCTOR, "vgpu-tech-preview",
            "Largest number of displays a guest can drive.", default=0),
        Field("max_resolution_x", INT, CONSTRUCTOR, "vgpu-productisation",
            "Largest width of a display, in pixels.", default=0),
        Field("max_resolution_y", INT, CONSTRUCTOR, "vgpu-productisation",
            "Largest height of a display, in pixels.", default=0),
        Field("supported_on_PGPUs", SetOf(RefTo("PGPU")), RUNTIME, "vgpu-tech-preview",
            "Physical processors able to provide this kind.", inverse="PGPU.supported_VGPU_types"),
        Field("enabled_on_PGPUs", SetOf(RefTo("PGPU")), RUNTIME, "vgpu-tech-preview",
            "Physical processors on which this kind is allowed.", inverse="PGPU.enabled_VGPU_types"),
        Field("VGPUs", SetOf(RefTo("VGPU")), RUNTIME, "vgpu-tech-preview",
            "Virtual GPUs of this kind.", inverse="VGPU.type"),
        Field("supported_on_GPU_groups", SetOf(RefTo("GPU_group")), RUNTIME, "vgpu-productisation",
            "Groups with at least one processor able to provide this kind.",
            inverse="GPU_group.supported_VGPU_types"),
        Field("enabled_on_GPU_groups", SetOf(RefTo("GPU_group")), RUNTIME, "vgpu-productisation",
            "Groups with at least one processor on which this kind is allowed.",
            inverse="GPU_group.enabled_VGPU_types"),
        Field("implementation", EnumOf("vgpu_type_implementation"), CONSTRUCTOR, "dundee",
            "Technology by which the virtual GPU is provided.", default="passthrough"),
        Field("identifier", STRING, CONSTRUCTOR, "dundee",
            "Text that tells this kind apart from every other, so that it is not recorded twice.", default=""),
        Field("experimental", BOOL, CONSTRUCTOR, "dundee",
            "True if this kind is offered for trial and is not fully supported.", default=False),
        Field("compatible_types_in_vm", SetOf(RefTo("VGPU_type")), RUNTIME, "quebec",
            "Kinds that may be present in the same VM together with this one.", default=()),
    ),
    enums=(
        Enum("vgpu_type_implementation",
            "Technologies for giving a VM graphics hardware.",
            {
                "passthrough": "The VM receives a whole physical processor for itself.",
                "nvidia": "NVIDIA shares the processor in software through its host driver.",
                "nvidia_sriov": "NVIDIA shares the processor through SR-IOV virtual functions.",
                "gvt_g": "Intel shares an integrated graphics processor through its GVT-g technology.",
                "mxgpu": "AMD shares the processor in hardware through its MxGPU technology.",
            }),
    ),
)
