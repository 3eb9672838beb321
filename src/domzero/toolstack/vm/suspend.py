"""Saving a machine's memory to a disk image and going on from there."""

from __future__ import annotations

import logging

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.host.hypervisor.protocol import DomainNotFoundError, HypervisorError, RunState
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.alerts import VM_RESUMED, VM_SUSPENDED, on_host, tell_of_machine
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import failures, images
from domzero.toolstack.vm.admission import bad_power_state
from domzero.toolstack.vm.boot import Boot, boot, end_domain
from domzero.toolstack.vm.operations import SUSPENDED
from domzero.toolstack.vm.owner import Domain
from domzero.toolstack.vm.placement import choose_host, obstacle
from domzero.toolstack.vm.rows import leave

log = logging.getLogger(__name__)


@implements("VM.suspend")
async def suspend(stack: Stack, context: Context, vm: Ref) -> None:
    """Save the guest's memory to an image and give up its domain. On failure the guest goes on as before."""
    async with stack.gates["VM"].operation(context, vm, "suspend"), stack.machines.turn(vm) as machine:
        domain = stack.machines.living(machine)
        async with Steps() as steps:
            with context.task.cancellable():
                await save(stack, steps, vm, domain)
            with failures.acting_on(vm):
                await steps.do("end the domain", lambda: end_domain(stack, domain.domid))
        await leave(stack, machine, SUSPENDED)
        tell_of_machine(stack, VM_SUSPENDED, vm, f"was suspended {on_host(stack)}")


async def save(stack: Stack, steps: Steps, vm: Ref, domain: Domain) -> Ref:
    """Write the memory of a domain whose turn is held into a new image, the machine's `suspend_VDI`.

    The domain stays, paused. Undoing it deletes the image and lets the domain go on if it ran before.
    """
    # A machine that copies layers of its disks cannot give them up.
    await stack.merges.leave_machine(vm)
    running = domain.state is RunState.RUNNING
    uuid = stack.database.new_uuid()
    image = await steps.do("remember the image", lambda: images.remember(stack, vm, uuid))
    steps.on_failure("discard the image", lambda: images.discard(stack, vm, image))
    await steps.do("make the image", lambda: images.make(stack, image))
    file = await images.path(stack, image)
    if running:
        steps.on_failure("let the guest go on", lambda: go_on(stack, domain))
    with failures.acting_on(vm):
        await steps.do("save the memory", lambda: stack.hypervisor.save(domain.domid, file))
    await steps.do("record the image", lambda: images.complete(stack, image))
    return image


async def go_on(stack: Stack, domain: Domain) -> None:
    """Let a domain run on that was paused for a moment. One that has ended is left to its owner."""
    try:
        await stack.hypervisor.unpause(domain.domid)
    except DomainNotFoundError:
        return
    except HypervisorError as error:
        log.warning("domain %d stays paused: %s", domain.domid, error)
        raise


@implements("VM.resume")
async def resume(stack: Stack, context: Context, vm: Ref, start_paused: bool, force: bool) -> None:
    """Go on from the saved memory where it fits best, then delete the image."""
    async with stack.gates["VM"].operation(context, vm, "resume"):
        host = choose_host(stack, vm, stack.database.record("VM", vm), force=force)
        await _resume(stack, context, vm, host, start_paused=start_paused)


@implements("VM.resume_on")
async def resume_on(stack: Stack, context: Context, vm: Ref, host: Ref, start_paused: bool, force: bool) -> None:
    """Go on from the saved memory on a given host, then delete the image."""
    stack.database.row("host", host)
    async with stack.gates["VM"].operation(context, vm, "resume_on"):
        error = obstacle(stack, vm, stack.database.record("VM", vm), host, force=force)
        if error is not None:
            raise error
        await _resume(stack, context, vm, host, start_paused=start_paused)


async def _resume(stack: Stack, context: Context, vm: Ref, host: Ref, *, start_paused: bool) -> None:
    claim = stack.gates["host"].operation(context, host, "vm_resume")
    async with claim, stack.machines.turn(vm) as machine:
        record = stack.database.record("VM", vm)
        if record["power_state"] != SUSPENDED:
            raise bad_power_state(vm, (SUSPENDED,), record["power_state"])
        image = record["suspend_VDI"]
        if image == NULL_REF:
            raise ApiError("VM_HAS_NO_SUSPEND_VDI", vm)
        if stack.database.find("VDI", image) is None:
            raise ApiError("SUSPEND_IMAGE_NOT_ACCESSIBLE", image)
        file = await images.path(stack, image)
        with context.task.cancellable():
            await boot(stack, machine, Boot(host, start_paused, file))
        tell_of_machine(stack, VM_RESUMED, vm, f"was resumed {on_host(stack)}")
        # The machine no longer refers to the image, on disk too, before the image goes.
        await stack.database.durable()
        await images.release(stack, image)
