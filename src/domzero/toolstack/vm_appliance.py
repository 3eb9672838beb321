"""Appliances: machines that are started and stopped together, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import lifecycle

log = logging.getLogger(__name__)

Act: TypeAlias = Callable[[Ref], Awaitable[None]]
Order: TypeAlias = Sequence[tuple[Sequence[Ref], int]]
"""Groups of machines to be dealt with at once, and the seconds to wait after each."""


@implements("VM_appliance.create")
def create(stack: Stack, context: Context, args: Mapping[str, Any]) -> Ref:
    """A new appliance without machines."""
    with stack.database.transaction() as transaction:
        appliance = transaction.create("VM_appliance", args)
    stack.gates["VM_appliance"].refresh(appliance)
    return appliance


@implements("VM_appliance.destroy")
def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Dissolve the appliance; its machines stay as they are."""
    stack.gates["VM_appliance"].assert_allowed(self, "shutdown")
    with stack.database.transaction() as transaction:
        for vm in stack.database.get("VM_appliance", self, "VMs"):
            transaction.update("VM", vm, appliance=NULL_REF)
        transaction.destroy("VM_appliance", self)


@implements("VM_appliance.start")
async def start(stack: Stack, context: Context, self: Ref, paused: bool) -> None:
    """Start the halted machines in order, and let the paused ones run unless `paused` is asked for.

    Raises OPERATION_PARTIALLY_FAILED when a machine did not start; those after it are not tried.
    """

    async def start_one(vm: Ref) -> None:
        state = stack.database.get("VM", vm, "power_state")
        if state == "Halted":
            await lifecycle.start(stack, context, vm, paused, False)
        elif state == "Paused" and not paused:
            await lifecycle.unpause(stack, context, vm)

    order = start_order(_records(stack, self))
    async with stack.gates["VM_appliance"].operation(context, self, "start"):
        await _carry_out(stack, self, "start", order, start_one, stop_at_failure=True)


@implements("VM_appliance.clean_shutdown")
async def clean_shutdown(stack: Stack, context: Context, self: Ref) -> None:
    """Have the guests shut down, in reverse order. Raises OPERATION_PARTIALLY_FAILED when some did not."""
    await _shut_down(stack, context, self, "clean_shutdown", lifecycle.clean_shutdown)


@implements("VM_appliance.hard_shutdown")
async def hard_shutdown(stack: Stack, context: Context, self: Ref) -> None:
    """Cut the power, in reverse order. Raises OPERATION_PARTIALLY_FAILED when some machines still have it."""
    await _shut_down(stack, context, self, "hard_shutdown", lifecycle.hard_shutdown)


@implements("VM_appliance.shutdown")
async def shutdown(stack: Stack, context: Context, self: Ref) -> None:
    """Shut down cleanly where that works and cut the power where not, in reverse order."""
    await _shut_down(stack, context, self, "shutdown", lifecycle.shutdown)


async def _shut_down(
    stack: Stack,
    context: Context,
    appliance: Ref,
    operation: str,
    verb: Callable[[Stack, Context, Ref], Awaitable[None]],
) -> None:
    async def stop_one(vm: Ref) -> None:
        if stack.database.get("VM", vm, "power_state") != "Halted":
            await verb(stack, context, vm)

    order = shutdown_order(_records(stack, appliance))
    async with stack.gates["VM_appliance"].operation(context, appliance, operation):
        await _carry_out(stack, appliance, operation, order, stop_one, stop_at_failure=False)


def _records(stack: Stack, appliance: Ref) -> Mapping[Ref, Mapping[str, Any]]:
    return {vm: stack.database.record("VM", vm) for vm in stack.database.get("VM_appliance", appliance, "VMs")}


def start_order(machines: Mapping[Ref, Mapping[str, Any]]) -> Order:
    """Machines of one `order` together, lower ones first; then the longest of their start delays is waited."""
    return _grouped(machines, "start_delay", reverse=False)


def shutdown_order(machines: Mapping[Ref, Mapping[str, Any]]) -> Order:
    """The reverse of the start order, with the shutdown delays."""
    return _grouped(machines, "shutdown_delay", reverse=True)


def _grouped(machines: Mapping[Ref, Mapping[str, Any]], delay: str, *, reverse: bool) -> Order:
    def place(vm: Ref) -> int:
        return int(machines[vm]["order"])

    groups = [list(group) for _, group in groupby(sorted(machines, key=place, reverse=reverse), key=place)]
    return [(group, max(int(machines[vm][delay]) for vm in group)) for group in groups]


async def _carry_out(
    stack: Stack, appliance: Ref, operation: str, order: Order, act: Act, *, stop_at_failure: bool
) -> None:
    failed = False
    for number, (group, delay) in enumerate(order):
        outcomes = await asyncio.gather(*(act(vm) for vm in group), return_exceptions=True)
        for vm, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, ApiError):
                log.warning("%s of %s in appliance %s failed: %s", operation, vm, appliance, outcome)
                failed = True
            elif outcome is not None:
                raise outcome
        if failed and stop_at_failure:
            break
        if number + 1 < len(order):
            await stack.clock.sleep(delay)
    if failed:
        raise ApiError("OPERATION_PARTIALLY_FAILED", operation)
