"""Whether a machine takes an operation now: one pure decision, with the errors in the documented order.

The order matters to clients, which tell situations apart by the first error: an operation blocked by an
administrator, the power state, operations under way, templates, snapshots, machines tied to their host, the control
domain, what the guest can do, and devices that cannot be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domzero.engine.errors import ApiError
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import Ref
from domzero.toolstack.vm.operations import LISTED, OPERATIONS, Operation, may_begin_beside

if TYPE_CHECKING:
    from domzero.engine.database import Database

VM_LISTED = LISTED
"""The operations that may appear in `allowed_operations`."""

NEEDS_GUEST_SHUTDOWN = frozenset({"clean_shutdown", "clean_reboot"})
SAVES_STATE = frozenset({"suspend", "checkpoint", "pool_migrate", "migrate_send"})
"""Operations that move the machine's whole state into a file or to another host."""
NOT_ON_DEFAULT_TEMPLATE = frozenset({"destroy", "migrate_send"})
CANNOT_SUSPEND = "data-cant-suspend-reason"
"""The guest metrics' key under which a guest says why it must not be suspended."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A machine as far as admission looks: its record, and what is found by following its references."""

    ref: Ref
    record: Mapping[str, Any]
    guest: Mapping[str, str]
    """`other` of its guest metrics."""
    immobile: bool = False
    """Whether the running domain uses something that ties it to its host."""
    reset_disk: Ref = ""
    """An attached disk that is reset at each boot, if there is one."""

    @property
    def is_default_template(self) -> bool:
        return bool(self.record["is_default_template"] or self.record["other_config"].get("default_template") == "true")


def subject_of(database: Database, vm: Ref) -> Subject:
    """Gather what the checks need. Raises HANDLE_INVALID."""
    record = database.record("VM", vm)
    guest = database.find("VM_guest_metrics", record["guest_metrics"])
    metrics = database.find("VM_metrics", record["metrics"])
    return Subject(
        vm,
        record,
        guest.record["other"] if guest else EMPTY_MAP,
        bool(metrics and metrics.record["nomigrate"]),
        _reset_disk(database, record),
    )


def check(database: Database, vm: Ref, operation: str) -> ApiError | None:
    """The first reason why the operation cannot start now, or None."""
    return judge(database, vm)(operation)


def judge(database: Database, vm: Ref) -> Callable[[str], ApiError | None]:
    """`check` of one machine as it is now, for many operations."""
    subject = subject_of(database, vm)
    return lambda operation: refusal(subject, OPERATIONS[operation])


def refusal(subject: Subject, operation: Operation) -> ApiError | None:
    """As `check`, of plain values."""
    for step in _STEPS:
        error = step(subject, operation)
        if error is not None:
            return error
    return None


def bad_power_state(vm: Ref, expected: tuple[str, ...], actual: str) -> ApiError:
    """VM_BAD_POWER_STATE as the API words it."""
    return ApiError("VM_BAD_POWER_STATE", vm, ", ".join(expected).lower(), actual.lower())


def _blocked(subject: Subject, operation: Operation) -> ApiError | None:
    reason = subject.record["blocked_operations"].get(operation.name)
    return None if reason is None else ApiError("OPERATION_BLOCKED", subject.ref, reason)


def _power_state(subject: Subject, operation: Operation) -> ApiError | None:
    actual = subject.record["power_state"]
    states = operation.states
    if subject.record["is_control_domain"]:
        states = tuple(dict.fromkeys((*states, *operation.control_domain_states)))
    return None if actual in states else bad_power_state(subject.ref, states, actual)


def _concurrency(subject: Subject, operation: Operation) -> ApiError | None:
    for task, running in subject.record["current_operations"].items():
        if not may_begin_beside(operation.name, running):
            return ApiError("OTHER_OPERATION_IN_PROGRESS", "VM", subject.ref, running, task)
    return None


def _template(subject: Subject, operation: Operation) -> ApiError | None:
    if not subject.record["is_a_template"]:
        return ApiError("PROVISION_ONLY_ALLOWED_ON_TEMPLATE") if operation.name == "provision" else None
    if subject.is_default_template and operation.name in NOT_ON_DEFAULT_TEMPLATE:
        if operation.name == "destroy":
            return ApiError("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", subject.ref)
        return ApiError("VM_IS_TEMPLATE", subject.ref)
    if subject.record["is_a_snapshot"] or operation.on_template:
        return None
    return ApiError("VM_IS_TEMPLATE", subject.ref)


def _snapshot(subject: Subject, operation: Operation) -> ApiError | None:
    if not subject.record["is_a_snapshot"]:
        return ApiError("REVERT_ONLY_ALLOWED_ON_SNAPSHOT") if operation.name == "revert" else None
    return None if operation.on_snapshot else ApiError("VM_IS_SNAPSHOT", subject.ref, operation.name)


def _immobile(subject: Subject, operation: Operation) -> ApiError | None:
    if subject.immobile and operation.name in SAVES_STATE:
        return ApiError("VM_IS_IMMOBILE", subject.ref)
    return None


def _control_domain(subject: Subject, operation: Operation) -> ApiError | None:
    if subject.record["is_control_domain"] and not operation.control_domain_states:
        return ApiError("OPERATION_NOT_ALLOWED", f"{operation.name} is not possible on the control domain")
    return None


def _guest(subject: Subject, operation: Operation) -> ApiError | None:
    """A guest is asked to shut down through its agent or its ACPI power button: it must have one of them."""
    has_button = subject.record["platform"].get("acpi", "true") not in ("false", "0")
    if operation.name in NEEDS_GUEST_SHUTDOWN and not has_button and subject.guest.get("feature-shutdown") != "1":
        return ApiError("VM_MISSING_PV_DRIVERS", subject.ref)
    return None


def _suspendable(subject: Subject, operation: Operation) -> ApiError | None:
    if operation.name in SAVES_STATE and subject.guest.get(CANNOT_SUSPEND):
        return ApiError("VM_NON_SUSPENDABLE", subject.ref, subject.guest[CANNOT_SUSPEND])
    return None


def _devices(subject: Subject, operation: Operation) -> ApiError | None:
    if operation.name not in SAVES_STATE:
        return None
    record = subject.record
    if record["attached_PCIs"]:
        return ApiError("VM_HAS_PCI_ATTACHED", subject.ref)
    if record["VGPUs"]:
        return ApiError("VM_HAS_VGPU", subject.ref)
    if record["VUSBs"]:
        return ApiError("VM_HAS_VUSBS", subject.ref)
    if subject.reset_disk and operation.name in ("suspend", "checkpoint"):
        return ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    return None


_STEPS: tuple[Callable[[Subject, Operation], ApiError | None], ...] = (
    _blocked,
    _power_state,
    _concurrency,
    _template,
    _snapshot,
    _immobile,
    _control_domain,
    _guest,
    _suspendable,
    _devices,
)


def _reset_disk(database: Database, record: Mapping[str, Any]) -> Ref:
    for vbd in record["VBDs"]:
        vdi = database.find("VDI", database.get("VBD", vbd, "VDI"))
        if vdi is not None and vdi.record["on_boot"] == "reset":
            return str(vdi.ref)
    return ""
