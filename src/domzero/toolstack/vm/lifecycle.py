"""Starting and stopping machines."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from domzero.engine.binding import implements
from domzero.engine.clock import settled
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.host.hypervisor.protocol import DomainStopped, GuestNotRespondingError, RunState, StopReason
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.alerts import VM_REBOOTED, VM_SHUTDOWN, VM_STARTED, on_host, tell_of_machine
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import failures, guest_events, images
from domzero.toolstack.vm.admission import bad_power_state
from domzero.toolstack.vm.boot import Boot, boot, end_domain
from domzero.toolstack.vm.operations import HALTED, PAUSED, RUNNING, SUSPENDED
from domzero.toolstack.vm.owner import Domain
from domzero.toolstack.vm.placement import choose_host, obstacle
from domzero.toolstack.vm.reboot import reboot
from domzero.toolstack.vm.rows import leave, record_gone, refresh_all
from domzero.toolstack.xenstore.requests import ask_to_shut_down

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT: Final = 1200
PRESS_INTERVAL: Final = 5.0
"""Seconds between two presses of the power button."""
"""Seconds that a guest may take to shut down."""


@implements("VM.start")
async def start(stack: Stack, context: Context, vm: Ref, start_paused: bool, force: bool) -> None:
    """Boot a halted machine where it fits best."""
    async with stack.gates["VM"].operation(context, vm, "start"):
        host = choose_host(stack, vm, stack.database.record("VM", vm), force=force)
        await _start(stack, context, vm, Boot(host, start_paused))


@implements("VM.start_on")
async def start_on(stack: Stack, context: Context, vm: Ref, host: Ref, start_paused: bool, force: bool) -> None:
    """Boot a halted machine on a given host."""
    stack.database.row("host", host)
    async with stack.gates["VM"].operation(context, vm, "start_on"):
        error = obstacle(stack, vm, stack.database.record("VM", vm), host, force=force)
        if error is not None:
            raise error
        await _start(stack, context, vm, Boot(host, start_paused))


async def _start(stack: Stack, context: Context, vm: Ref, how: Boot) -> None:
    claim = stack.gates["host"].operation(context, how.host, "vm_start")
    async with claim, stack.machines.turn(vm) as machine:
        state = stack.database.get("VM", vm, "power_state")
        if state != HALTED:
            raise bad_power_state(vm, (HALTED,), state)
        with context.task.cancellable():
            await boot(stack, machine, replace(how, progress=context.task.set_progress))
        tell_of_machine(stack, VM_STARTED, vm, f"started {on_host(stack)}")


@implements("VM.pause")
async def pause(stack: Stack, context: Context, vm: Ref) -> None:
    """Stop the virtual processors; the machine keeps its memory and its host."""
    await _set_run_state(stack, context, vm, "pause", RunState.PAUSED)


@implements("VM.unpause")
async def unpause(stack: Stack, context: Context, vm: Ref) -> None:
    """Let a paused machine run again."""
    await _set_run_state(stack, context, vm, "unpause", RunState.RUNNING)


async def _set_run_state(stack: Stack, context: Context, vm: Ref, operation: str, wanted: RunState) -> None:
    verb = stack.hypervisor.pause if wanted is RunState.PAUSED else stack.hypervisor.unpause
    async with stack.gates["VM"].operation(context, vm, operation):
        async with stack.machines.running(vm) as domain, Steps() as steps:
            with failures.acting_on(vm):
                await steps.do(operation, lambda: verb(domain.domid))
            with stack.database.transaction(observed=True) as transaction:
                state = PAUSED if wanted is RunState.PAUSED else RUNNING
                transaction.update("VM", vm, power_state=state)
        refresh_all(stack, vm)


@implements("VM.clean_shutdown")
async def clean_shutdown(stack: Stack, context: Context, vm: Ref) -> None:
    """Have the guest shut itself down; VM_SHUTDOWN_TIMEOUT when it does not."""
    async with stack.gates["VM"].operation(context, vm, "clean_shutdown"), stack.machines.turn(vm) as machine:
        domain = stack.machines.living(machine)
        stopped = await _ask_to_shut_down(stack, context, vm, domain, "poweroff")
        if stopped is None:
            raise ApiError("VM_CRASHED", vm)
        if stopped.reason in (StopReason.SHUTDOWN, StopReason.DESTROYED):
            await leave(stack, machine)
            tell_of_machine(stack, VM_SHUTDOWN, vm, f"shut down {on_host(stack)}")
            return
        await guest_events.follow(stack, machine, domain, stopped)
        raise ApiError("VM_CRASHED" if stopped.reason is StopReason.CRASH else "VM_REBOOTED", vm)


@implements("VM.clean_reboot")
async def clean_reboot(stack: Stack, context: Context, vm: Ref) -> None:
    """Have the guest shut itself down, and boot it again as a new domain."""
    async with stack.gates["VM"].operation(context, vm, "clean_reboot"), stack.machines.turn(vm) as machine:
        domain = stack.machines.living(machine)
        stopped = await _ask_to_shut_down(stack, context, vm, domain, "reboot")
        if stopped is None:
            raise ApiError("VM_CRASHED", vm)
        if stopped.reason is StopReason.CRASH:
            await guest_events.follow(stack, machine, domain, stopped)
            raise ApiError("VM_CRASHED", vm)
        await reboot(stack, machine)
        tell_of_machine(stack, VM_REBOOTED, vm, f"rebooted {on_host(stack)}")


async def _ask_to_shut_down(stack: Stack, context: Context, vm: Ref, domain: Domain, how: str) -> DomainStopped | None:
    """Have the guest's agent do it, or press the power button, and wait for the end of the domain, however it comes.

    None for a guest that crashed instead and is kept: its owner knows what to do.

    The button is pressed again and again, unless the agent has acknowledged what it was asked for (`how`): a guest that
    is still booting misses the button, and some systems act on the second press only; those that are shutting down
    already take no notice.
    """
    deadline = stack.clock.monotonic() + SHUTDOWN_TIMEOUT
    with context.task.cancellable():
        acknowledged = await ask_to_shut_down(stack, domain, how)
        while not domain.ended.done() and domain.state is not RunState.CRASHED:
            left = deadline - stack.clock.monotonic()
            if left <= 0:
                raise ApiError("VM_SHUTDOWN_TIMEOUT", vm, str(SHUTDOWN_TIMEOUT))
            if not acknowledged:
                await _press_power_button(stack, vm, domain)
            await settled(stack.clock, domain.ended, min(left, PRESS_INTERVAL))
    return domain.ended.result() if domain.ended.done() else None


async def _press_power_button(stack: Stack, vm: Ref, domain: Domain) -> None:
    try:
        with failures.acting_on(vm):
            await stack.hypervisor.request_shutdown(domain.domid)
    except ApiError as error:
        if domain.ended.done():
            return
        if isinstance(error.__cause__, GuestNotRespondingError):
            raise ApiError("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", vm) from error
        raise


@implements("VM.shutdown")
async def shutdown(stack: Stack, context: Context, vm: Ref) -> None:
    """Shut down cleanly if that works, else cut the power. A guest that did neither in time is cut off as well."""
    stack.gates["VM"].assert_allowed(vm, "shutdown")
    if stack.database.get("VM", vm, "power_state") == RUNNING:
        try:
            await clean_shutdown(stack, context, vm)
        except ApiError as error:
            log.info("%s does not shut down cleanly (%s); its power is cut", vm, error)
    if stack.database.get("VM", vm, "power_state") != HALTED:
        await hard_shutdown(stack, context, vm)


@implements("VM.hard_shutdown")
async def hard_shutdown(stack: Stack, context: Context, vm: Ref) -> None:
    """Cut the power at once, whatever else is going on; a suspended machine loses its saved memory."""
    gate = stack.gates["VM"]
    async with gate.operation(context, vm, "hard_shutdown"):
        await gate.cancel_others(context, vm)
        await _interrupt(stack, vm)
        async with stack.machines.turn(vm) as machine, Steps() as steps:
            if machine.domain is not None:
                domid = machine.domain.domid
                with failures.acting_on(vm):
                    await steps.do("end the domain", lambda: end_domain(stack, domid))
                await leave(stack, machine)
                tell_of_machine(stack, VM_SHUTDOWN, vm, f"was switched off {on_host(stack)}")
                return
            image = stack.database.get("VM", vm, "suspend_VDI")
            if stack.database.get("VM", vm, "power_state") == SUSPENDED:
                await steps.do("give up the saved state", lambda: record_gone(stack, vm))
                tell_of_machine(stack, VM_SHUTDOWN, vm, "lost its saved state: it was switched off")
                await images.release(stack, image)


async def _interrupt(stack: Stack, vm: Ref) -> None:
    """End the domain while somebody else has the machine's turn, who may be waiting for an answer that never comes.

    Without a domain nothing is left to wait for, so the turn becomes free.
    """
    domain = stack.machines.domain(vm)
    if domain is not None and stack.machines.is_taken(vm):
        log.info("the power of %s is cut in the middle of something", vm)
        with failures.acting_on(vm):
            await end_domain(stack, domain.domid)


@implements("VM.hard_reboot")
async def hard_reboot(stack: Stack, context: Context, vm: Ref) -> None:
    """Cut the power and boot again as a new domain."""
    gate = stack.gates["VM"]
    async with gate.operation(context, vm, "hard_reboot"):
        await gate.cancel_others(context, vm)
        async with stack.machines.turn(vm) as machine:
            domain = stack.machines.living(machine)
            async with Steps() as steps:
                await steps.do(
                    "remember the intent",
                    lambda: _plan(stack, vm, stack.host),
                    lambda: _plan(stack, vm, NULL_REF),
                )
                with failures.acting_on(vm):
                    await steps.do("end the domain", lambda: end_domain(stack, domain.domid))
            await reboot(stack, machine)
        tell_of_machine(stack, VM_REBOOTED, vm, f"was reset {on_host(stack)}")


async def _plan(stack: Stack, vm: Ref, host: Ref) -> None:
    """Say that the machine will be on the host, or null, so that a restart of the daemon half way finishes it."""
    with stack.database.transaction() as transaction:
        transaction.update("VM", vm, scheduled_to_be_resident_on=host)
    await stack.database.durable()


@implements("VM.power_state_reset")
async def power_state_reset(stack: Stack, context: Context, vm: Ref) -> None:
    """Say that the machine is halted, when its domain is known to be gone."""
    record = stack.database.record("VM", vm)
    if record["is_control_domain"]:
        raise ApiError("CANNOT_RESET_CONTROL_DOMAIN", vm)
    async with stack.gates["VM"].operation(context, vm, "power_state_reset"), stack.machines.turn(vm) as machine:
        if machine.domain is not None and not machine.domain.ended.done():
            raise ApiError("DOMAIN_EXISTS", vm, str(machine.domain.domid))
        image = stack.database.get("VM", vm, "suspend_VDI")
        await leave(stack, machine)
        await images.release(stack, image)
