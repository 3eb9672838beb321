"""The VGPU class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, NULL_REF, STRING, STRING_MAP, VOID, RefTo

CLASS = Class(
    "VGPU",
    "A virtual graphics processor belonging to a VM, whether a share or the whole of a physical one.",
    "boston",
    fields=(
        Field("uuid", STRING, RUNTIME, "boston",
            "Unique identifier, stable for the life of the object."),
        Field("VM", RefTo("VM"), RUNTIME, "boston",
            "Virtual machine that owns the virtual GPU."),
        Field("GPU_group", RefTo("GPU_group"), RUNTIME, "boston",
            "Group from which a physical processor is chosen when the VM starts."),
        Field("device", STRING, RUNTIME, "boston",
            "Position of the virtual GPU in the VM, written as a number from zero.", default="0"),
        Field("currently_attached", BOOL, RUNTIME, "boston",
            "True while the virtual GPU is connected to its running VM.", default=False),
        Field("other_config", STRING_MAP, RW, "boston",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
        Field("type", RefTo("VGPU_type"), RUNTIME, "vgpu-tech-preview",
            "Kind of virtual GPU, fixing its memory and abilities.", default=NULL_REF),
        Field("resident_on", RefTo("PGPU"), RUNTIME, "vgpu-tech-preview",
            "Physical processor on which it is running, or null when the VM is not.", default=NULL_REF),
        Field("scheduled_to_be_resident_on", RefTo("PGPU"), RUNTIME, "dundee",
            "Physical processor reserved for it while the VM is starting, resuming or migrating.", default=NULL_REF),
        Field("compatibility_metadata", STRING_MAP, RUNTIME, "inverness",
            "Driver data used to judge which physical processors it could migrate to.", default=EMPTY_MAP),
        Field("extra_args", STRING, RW, "quebec",
            "Additional settings passed to the virtual GPU's device emulator at VM start.",
            default="", setter_role="pool-operator"),
        Field("PCI", RefTo("PCI"), RUNTIME, "quebec",
            "Device passed to the VM to implement the virtual GPU, where it has one of its own; null otherwise.",
            default=NULL_REF),
    ),
    messages=(
        Message("destroy",
            (
                Param("self", RefTo("VGPU"), "The VGPU to act on."),
            ), VOID, "boston",
            "Removes the virtual GPU from its VM, which must be halted.", least_role="pool-operator"),
        Message("create",
            (
                Param("VM", RefTo("VM"), "Virtual machine to receive it."),
                Param("GPU_group", RefTo("GPU_group"), "Group from which the physical processor will come."),
                Param("device", STRING, "Position in the VM, as a number from zero."),
                Param("other_config", STRING_MAP, "Free-form keys to record with it."),
                Param("type", RefTo("VGPU_type"),
                      "Kind of virtual GPU; null means passing through a whole processor."),
            ), RefTo("VGPU"), "boston",
            "Adds a virtual GPU to a halted VM; fails if the position is taken or it conflicts with others there.",
            least_role="pool-operator"),
    ),
)
