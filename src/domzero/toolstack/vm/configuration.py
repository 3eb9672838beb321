"""Settings of machines that take effect at their next start, or only matter to whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import DomainNotFoundError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.admission import bad_power_state
from domzero.toolstack.vm.creation import domain_type_fields
from domzero.toolstack.vm.failures import acting_on
from domzero.toolstack.vm.memory_constraints import check_multiplier, check_vcpus
from domzero.toolstack.vm.specification import KEPT_AFTER_CRASH

RESTART_PRIORITIES = ("restart", "best-effort", "")


@implements("VM.set_VCPUs_max")
async def set_VCPUs_max(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """The most processors of a halted machine. Raises INVALID_VALUE below one or below those at start."""
    async with stack.gates["VM"].operation(context, self, "changing_VCPUs"):
        _refuse_control_domain(stack, self)
        if value < stack.database.get("VM", self, "VCPUs_at_startup"):
            raise ApiError("INVALID_VALUE", "VCPUs_max", str(value))
        _set(stack, self, VCPUs_max=value)


@implements("VM.set_VCPUs_at_startup")
async def set_VCPUs_at_startup(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """The processors that a halted machine starts with. Raises INVALID_VALUE below one or above the most."""
    async with stack.gates["VM"].operation(context, self, "changing_VCPUs"):
        _refuse_control_domain(stack, self)
        check_vcpus(value, stack.database.get("VM", self, "VCPUs_max"))
        _set(stack, self, VCPUs_at_startup=value)


@implements("VM.set_HVM_shadow_multiplier")
async def set_HVM_shadow_multiplier(stack: Stack, context: Context, self: Ref, value: float) -> None:
    """The factor for page-table memory of a halted machine. Raises INVALID_VALUE below 1 or above 1000."""
    async with stack.gates["VM"].operation(context, self, "changing_shadow_memory"):
        check_multiplier("HVM_shadow_multiplier", value)
        _set(stack, self, HVM_shadow_multiplier=value)


@implements("VM.set_HVM_boot_policy")
def set_HVM_boot_policy(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Firmware boot for any text, paravirtual boot for none; the kind of machine follows."""
    kind = stack.database.get("VM", self, "domain_type")
    if value:
        kind = "hvm"
    elif kind in ("hvm", "unspecified"):
        kind = "pv"
    _set(stack, self, **domain_type_fields(kind, value))


@implements("VM.set_domain_type")
def set_domain_type(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """The kind of a halted machine; the boot policy follows."""
    _require_state(stack, self, "Halted")
    _set(stack, self, **domain_type_fields(value, stack.database.get("VM", self, "HVM_boot_policy")))


@implements("VM.set_actions_after_crash")
async def set_actions_after_crash(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """What to do when the guest crashes; it holds for a machine that runs already."""
    _set(stack, self, actions_after_crash=value)
    domain = stack.machines.domain(self)
    if domain is None or domain.status is None or domain.ended.done():
        return
    with acting_on(self):
        try:
            await stack.hypervisor.keep_crashed(domain.domid, keep=value in KEPT_AFTER_CRASH)
        except DomainNotFoundError:
            return  # it has just ended


@implements("VM.set_has_vendor_device")
def set_has_vendor_device(stack: Stack, context: Context, self: Ref, value: bool) -> None:
    """The device for Windows Update, which no hypervisor here has: only False is possible."""
    _require_state(stack, self, "Halted")
    if value:
        raise ApiError("VALUE_NOT_SUPPORTED", "has_vendor_device", "true", "no hypervisor of this host has the device")
    _set(stack, self, has_vendor_device=False)


@implements("VM.set_order")
def set_order(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """Place in the start sequence, from 0."""
    _set_natural(stack, self, "order", value)


@implements("VM.set_start_delay")
def set_start_delay(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """Seconds between this machine's start and the next ones'."""
    _set_natural(stack, self, "start_delay", value)


@implements("VM.set_shutdown_delay")
def set_shutdown_delay(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """Seconds between this machine's end and the next ones'."""
    _set_natural(stack, self, "shutdown_delay", value)


@implements("VM.set_appliance")
def set_appliance(stack: Stack, context: Context, self: Ref, value: Ref) -> None:
    """Join an appliance, or leave with null."""
    _refuse_control_domain(stack, self)
    before = stack.database.get("VM", self, "appliance")
    if value != NULL_REF:
        stack.database.row("VM_appliance", value)
    _set(stack, self, appliance=value)
    for appliance in {before, value}:
        if stack.database.find("VM_appliance", appliance) is not None:
            stack.gates["VM_appliance"].refresh(appliance)


@implements("VM.set_snapshot_schedule")
def set_snapshot_schedule(stack: Stack, context: Context, self: Ref, value: Ref) -> None:
    """Come under a snapshot schedule, or leave it with null."""
    _refuse_control_domain(stack, self)
    if value != NULL_REF:
        stack.database.row("VMSS", value)
        if stack.database.get("VM", self, "is_a_template"):
            raise ApiError("VM_IS_TEMPLATE", self)
    _set(stack, self, snapshot_schedule=value)


@implements("VM.set_ha_restart_priority")
def set_ha_restart_priority(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """How strongly high availability is to protect the machine. Raises INVALID_VALUE for other words."""
    if value not in RESTART_PRIORITIES:
        raise ApiError("INVALID_VALUE", "ha_restart_priority", value)
    _refuse_control_domain(stack, self)
    _set(stack, self, ha_restart_priority=value, ha_always_run=value == "restart")


@implements("VM.set_ha_always_run")
def set_ha_always_run(stack: Stack, context: Context, self: Ref, value: bool) -> None:
    """The older form of the restart priority."""
    set_ha_restart_priority(stack, context, self, "restart" if value else "")


@implements("VM.set_suspend_VDI")
def set_suspend_VDI(stack: Stack, context: Context, self: Ref, value: Ref) -> None:
    """Resume from another image. Raises VM_BAD_POWER_STATE unless suspended, VDI_INCOMPATIBLE_TYPE, VDI_IN_USE."""
    _require_state(stack, self, "Suspended")
    disk = stack.database.record("VDI", value)
    if disk["type"] != "suspend":
        raise ApiError("VDI_INCOMPATIBLE_TYPE", value, disk["type"])
    if set(stack.image_users.of(value)) - {self}:
        raise ApiError("VDI_IN_USE", value, "set_suspend_VDI")
    _set(stack, self, suspend_VDI=value)


@implements("VM.set_is_a_template")
def set_is_a_template(stack: Stack, context: Context, self: Ref, value: bool) -> None:
    """Turn a halted machine into a template, or a template into a machine, which counts as its installation.

    Raises VM_IS_SNAPSHOT for snapshots, OPERATION_NOT_ALLOWED for the pool's own templates.
    """
    record = stack.database.record("VM", self)
    if record["is_a_template"] == value:
        return
    if value:
        stack.gates["VM"].assert_allowed(self, "make_into_template")
        _set(stack, self, is_a_template=True, ha_restart_priority="", ha_always_run=False)
        return
    if record["is_a_snapshot"]:
        raise ApiError("VM_IS_SNAPSHOT", self, "set_is_a_template")
    if record["is_default_template"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "This template belongs to the pool; use a clone of it.")
    with stack.database.transaction() as transaction:
        if stack.database.find("VM_metrics", record["metrics"]) is not None:
            transaction.update("VM_metrics", record["metrics"], install_time=moment(stack.clock.now()))
        _set(stack, self, is_a_template=False)


@implements("VM.set_blocked_operations")
def set_blocked_operations(stack: Stack, context: Context, self: Ref, value: dict[str, str]) -> None:
    """Forbid exactly these operations, each with the reason that callers get to see."""
    _set(stack, self, blocked_operations=value)


@implements("VM.add_to_blocked_operations")
def add_to_blocked_operations(stack: Stack, context: Context, self: Ref, key: str, value: str) -> None:
    """Forbid one more operation. Raises MAP_DUPLICATE_KEY when it is forbidden already."""
    blocked: Mapping[str, str] = stack.database.get("VM", self, "blocked_operations")
    if key in blocked:
        raise ApiError("MAP_DUPLICATE_KEY", "VM", "blocked_operations", self, key)
    _set(stack, self, blocked_operations={**blocked, key: value})


@implements("VM.remove_from_blocked_operations")
def remove_from_blocked_operations(stack: Stack, context: Context, self: Ref, key: str) -> None:
    """Allow an operation again; one that was not forbidden is no error."""
    blocked: Mapping[str, str] = stack.database.get("VM", self, "blocked_operations")
    _set(stack, self, blocked_operations={name: reason for name, reason in blocked.items() if name != key})


def _set(stack: Stack, vm: Ref, **fields: Any) -> None:
    with stack.database.transaction() as transaction:
        transaction.update("VM", vm, **fields)
    stack.gates["VM"].refresh(vm)


def _set_natural(stack: Stack, vm: Ref, field: str, value: int) -> None:
    if value < 0:
        raise ApiError("INVALID_VALUE", field, str(value))
    _set(stack, vm, **{field: value})


def _require_state(stack: Stack, vm: Ref, state: str) -> None:
    actual = stack.database.get("VM", vm, "power_state")
    if actual != state:
        raise bad_power_state(vm, (state,), actual)


def _refuse_control_domain(stack: Stack, vm: Ref) -> None:
    if stack.database.get("VM", vm, "is_control_domain"):
        raise ApiError("OPERATION_NOT_ALLOWED", "The control domain is the host itself.")
