"""How much memory a machine may have. Every setter computes a whole new set of limits and checks it before it acts."""

from __future__ import annotations

from dataclasses import replace

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.failures import acting_on
from domzero.toolstack.vm.memory_constraints import MemoryLimits, check_limits, limits_of, target_within
from domzero.toolstack.vm.placement import growth_obstacle

STATIC = "changing_static_range"
DYNAMIC = "changing_dynamic_range"
ALL = "changing_memory_limits"


@implements("VM.set_memory_static_max")
async def set_memory_static_max(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """The upper limit of a halted machine."""
    await _set_static(stack, context, self, STATIC, static_max=value)


@implements("VM.set_memory_static_min")
async def set_memory_static_min(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """The lower limit of a halted machine."""
    await _set_static(stack, context, self, STATIC, static_min=value)


@implements("VM.set_memory_static_range")
async def set_memory_static_range(stack: Stack, context: Context, self: Ref, min: int, max: int) -> None:
    """Both hard limits of a halted machine."""
    await _set_static(stack, context, self, STATIC, static_min=min, static_max=max)


@implements("VM.set_memory_limits")
async def set_memory_limits(
    stack: Stack, context: Context, self: Ref, static_min: int, static_max: int, dynamic_min: int, dynamic_max: int
) -> None:
    """All four limits of a halted machine."""
    await _set_static(
        stack,
        context,
        self,
        ALL,
        static_min=static_min,
        static_max=static_max,
        dynamic_min=dynamic_min,
        dynamic_max=dynamic_max,
    )


@implements("VM.set_memory")
async def set_memory(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """One fixed amount for a halted machine: the upper limit and both dynamic ones."""
    await _set_static(stack, context, self, ALL, static_max=value, dynamic_min=value, dynamic_max=value)


@implements("VM.set_memory_dynamic_max")
async def set_memory_dynamic_max(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """The ballooning ceiling; a running guest follows."""
    await _set_dynamic(stack, context, self, dynamic_max=value)


@implements("VM.set_memory_dynamic_min")
async def set_memory_dynamic_min(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """The ballooning floor; a running guest follows."""
    await _set_dynamic(stack, context, self, dynamic_min=value)


@implements("VM.set_memory_dynamic_range")
async def set_memory_dynamic_range(stack: Stack, context: Context, self: Ref, min: int, max: int) -> None:
    """Both ballooning limits; a running guest follows."""
    await _set_dynamic(stack, context, self, dynamic_min=min, dynamic_max=max)


async def _set_static(stack: Stack, context: Context, vm: Ref, operation: str, **changes: int) -> None:
    async with stack.gates["VM"].operation(context, vm, operation):
        limits = _changed(stack, vm, changes)
        _record(stack, vm, limits, limits.dynamic_max)


async def _set_dynamic(stack: Stack, context: Context, vm: Ref, **changes: int) -> None:
    """The target of a running guest moves only as far as the new range makes it; its balloon goes first.

    Raises HOST_NOT_ENOUGH_FREE_MEMORY where that is more than the host has left.
    """
    async with stack.gates["VM"].operation(context, vm, DYNAMIC):
        if stack.database.get("VM", vm, "power_state") != "Running":
            limits = _changed(stack, vm, changes)
            _record(stack, vm, limits, limits.dynamic_max)
            return
        limits = _changed(stack, vm, changes)
        async with stack.machines.running(vm) as domain:
            present = stack.database.get("VM", vm, "memory_target")
            target = target_within(limits, present)
            if (error := growth_obstacle(stack, vm, target - present)) is not None:
                raise error
            if target != present:
                with acting_on(vm):
                    await stack.hypervisor.set_memory_target(domain.domid, target)
            _record(stack, vm, limits, target)


def _changed(stack: Stack, vm: Ref, changes: dict[str, int]) -> MemoryLimits:
    """The machine's limits with these changes. Raises MEMORY_CONSTRAINT_VIOLATION*."""
    record = stack.database.record("VM", vm)
    if record["is_control_domain"]:
        raise ApiError("OPERATION_NOT_ALLOWED", "The control domain's memory is the host's own.")
    return check_limits(replace(limits_of(record), **changes))


def _record(stack: Stack, vm: Ref, limits: MemoryLimits, target: int) -> None:
    with stack.database.transaction() as transaction:
        transaction.update("VM", vm, memory_target=target, **limits.fields())
