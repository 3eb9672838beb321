"""The VM_appliance class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, STRING, VOID, EnumOf, MapOf, RefTo, SetOf

CLASS = Class(
    "VM_appliance",
    "A group of machines that are started, stopped and recovered together in a set order.",
    "boston",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "rio",
            "Human-readable name; it need not be unique.", default="", setter_role="pool-operator"),
        Field("name_description", STRING, RW, "rio",
            "Free-form notes describing the appliance.", default="", setter_role="pool-operator"),
        Field("allowed_operations", SetOf(EnumOf("vm_appliance_operation")), RUNTIME, "rio",
            "Operations that could be started right now; advisory, since conditions may change before the call "
            "arrives.", default=()),
        Field("current_operations", MapOf(STRING, EnumOf("vm_appliance_operation")), RUNTIME, "rio",
            "Operations under way on this appliance, each keyed by the task that runs it.", default=EMPTY_MAP),
        Field("VMs", SetOf(RefTo("VM")), RUNTIME, "rio",
            "The machines in the appliance.", inverse="VM.appliance"),
    ),
    messages=(
        Message("recover",
            (
                Param("self", RefTo("VM_appliance"), "The VM_appliance to act on."),
                Param("session_to", RefTo("session"), "Session on the pool where the appliance is to be recovered."),
                Param("force", BOOL, "True to replace existing newer copies of the machines in the target pool."),
            ), VOID, "boston",
            "Copies the appliance and its machines from a replicated pool database into the pool of another "
            "session; needs their storage there.", errors=("VM_REQUIRES_SR",), least_role="read-only"),
        Message("get_SRs_required_for_recovery",
            (
                Param("self", RefTo("VM_appliance"), "The VM_appliance to act on."),
                Param("session_to", RefTo("session"), "Session on the pool where recovery is planned."),
            ), SetOf(RefTo("SR")), "creedence",
            "Lists the storage repositories the target pool needs before this appliance can be recovered there.",
            least_role="read-only"),
        Message("assert_can_be_recovered",
            (
                Param("self", RefTo("VM_appliance"), "The VM_appliance to act on."),
                Param("session_to", RefTo("session"), "Session on the pool where recovery is planned."),
            ), VOID, "boston",
            "Checks that recovery would work; fails if the target pool lacks storage a machine needs.",
            errors=("VM_REQUIRES_SR",), least_role="read-only"),
        Message("shutdown",
            (
                Param("self", RefTo("VM_appliance"), "The VM_appliance to act on."),
            ), VOID, "boston",
            "Stops the machines in reverse order, gently if possible and by cutting power otherwise; reports any "
            "left undone.", errors=("OPERATION_PARTIALLY_FAILED",), least_role="pool-operator"),
        Message("hard_shutdown",
            (
                Param("self", RefTo("VM_appliance"), "The VM_appliance to act on."),
            ), VOID, "boston",
            "Cuts the power of the machines in reverse order; fails in part if some could not be stopped.",
            errors=("OPERATION_PARTIALLY_FAILED",), least_role="pool-operator"),
        Message("clean_shutdown",
            (
                Param("self", RefTo("VM_appliance"), "The VM_appliance to act on."),
            ), VOID, "boston",
            "Asks the guests to shut down in reverse order; fails in part if some did not comply.",
            errors=("OPERATION_PARTIALLY_FAILED",), least_role="pool-operator"),
        Message("start",
            (
                Param("self", RefTo("VM_appliance"), "The VM_appliance to act on."),
                Param("paused", BOOL, "True to leave every machine paused once started."),
            ), VOID, "boston",
            "Starts the machines in order, observing their delays; fails in part if some could not be started.",
            errors=("OPERATION_PARTIALLY_FAILED",), least_role="pool-operator"),
    ),
    enums=(
        Enum("vm_appliance_operation",
            "Operations on a whole appliance.",
            {
                "start": "Starting the machines in order.",
                "clean_shutdown": "Orderly shutdown of the machines with their guests' help.",
                "hard_shutdown": "Cutting the power of the machines.",
                "shutdown": "Orderly shutdown that falls back to cutting the power.",
            }),
    ),
    has_get_by_name_label=True,
    constructor_role="pool-operator",
    destructor_role="pool-operator",
)
