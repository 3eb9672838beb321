"""Snapshots (disks), checkpoints (disks and memory), and the way back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.host.hypervisor.protocol import HypervisorError, RunState
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.vm import failures, images
from domzero.toolstack.vm.boot import end_domain
from domzero.toolstack.vm.family import hard_disks, record_reverted, record_snapshot
from domzero.toolstack.vm.operations import SUSPENDED
from domzero.toolstack.vm.owner import Domain
from domzero.toolstack.vm.rows import leave, refresh_all
from domzero.toolstack.vm.suspend import go_on, save

log = logging.getLogger(__name__)


@implements("VM.snapshot")
async def snapshot(stack: Stack, context: Context, vm: Ref, new_name: str, ignore_vdis: tuple[Ref, ...]) -> Ref:
    """Disks and configuration as they are now. A running guest stands still meanwhile, so that its disks agree."""
    async with stack.gates["VM"].operation(context, vm, "snapshot"), stack.machines.turn(vm) as machine:
        wanted = [vdi for vdi in hard_disks(stack, stack.database.record("VM", vm)) if vdi not in ignore_vdis]
        domain = machine.domain
        async with _claimed(stack, context, wanted, "snapshot", "vdi_snapshot"), Steps() as steps:
            async with _standing_still(stack, vm, domain):
                copies = await _capture(stack, steps, wanted)
            taken: list[Ref] = []
            await steps.do(
                "record the snapshot",
                lambda: taken.append(record_snapshot(stack, vm, new_name, copies, ignore_vdis, NULL_REF)),
            )
        _refresh(stack, vm, taken[0])
        return taken[0]


@implements("VM.checkpoint")
async def checkpoint(stack: Stack, context: Context, vm: Ref, new_name: str) -> Ref:
    """Memory, disks and configuration at one moment; the guest goes on afterwards as if nothing had been.

    Raises VM_CHECKPOINT_SUSPEND_FAILED when the memory could not be saved, VM_CHECKPOINT_RESUME_FAILED when the guest
    did not go on.
    """
    async with stack.gates["VM"].operation(context, vm, "checkpoint"), stack.machines.turn(vm) as machine:
        record = stack.database.record("VM", vm)
        wanted = hard_disks(stack, record)
        domain = None if record["power_state"] == SUSPENDED else stack.machines.living(machine)
        taken: list[Ref] = []
        async with _claimed(stack, context, wanted, "snapshot", "vdi_snapshot"), Steps() as steps:
            running = domain is not None and domain.state is RunState.RUNNING
            image = record["suspend_VDI"] if domain is None else await _save(stack, context, steps, vm, domain)
            copies = await _capture(stack, steps, wanted)
            await steps.do(
                "record the checkpoint", lambda: taken.append(_record_checkpoint(stack, vm, new_name, copies, image))
            )
        if running and domain is not None:
            await _go_on(stack, vm, domain)
        _refresh(stack, vm, taken[0])
        return taken[0]


async def _save(stack: Stack, context: Context, steps: Steps, vm: Ref, domain: Domain) -> Ref:
    try:
        with context.task.cancellable():
            return await save(stack, steps, vm, domain)
    except ApiError as error:
        if isinstance(error.__cause__, HypervisorError):
            raise ApiError("VM_CHECKPOINT_SUSPEND_FAILED", vm) from error
        raise


def _record_checkpoint(stack: Stack, vm: Ref, new_name: str, copies: dict[Ref, Ref], image: Ref) -> Ref:
    """The checkpoint takes the image over from a machine that is not suspended itself."""
    with stack.database.transaction() as transaction:
        taken = record_snapshot(stack, vm, new_name, copies, (), image)
        if stack.database.get("VM", vm, "power_state") != SUSPENDED:
            transaction.update("VM", vm, suspend_VDI=NULL_REF)
    return taken


async def _go_on(stack: Stack, vm: Ref, domain: Domain) -> None:
    try:
        await go_on(stack, domain)
    except HypervisorError as error:
        raise ApiError("VM_CHECKPOINT_RESUME_FAILED", vm) from error


@implements("VM.revert")
async def revert(stack: Stack, context: Context, snapshot: Ref) -> None:
    """Put the machine back to what the snapshot holds; what it has become since is lost, running or not.

    Disks that the snapshot knows nothing of are taken out of the machine but not deleted. Raises VM_REVERT_FAILED when
    the machine is gone.
    """
    gate = stack.gates["VM"]
    async with gate.operation(context, snapshot, "revert"):
        vm = stack.database.get("VM", snapshot, "snapshot_of")
        if stack.database.find("VM", vm) is None:
            raise ApiError("VM_REVERT_FAILED", vm, snapshot)
        async with gate.operation(context, vm, "reverting"), stack.machines.turn(vm) as machine:
            record = stack.database.record("VM", snapshot)
            held = hard_disks(stack, record)
            replaced = set(hard_disks(stack, stack.database.record("VM", vm)))
            replaced &= {stack.database.get("VDI", vdi, "snapshot_of") for vdi in held}
            image = stack.database.get("VM", vm, "suspend_VDI")
            async with _claimed(stack, context, held, "clone", "vdi_clone"), Steps() as steps:
                copies = await _clone(stack, steps, held)
                if machine.domain is not None:
                    domid = machine.domain.domid
                    with failures.acting_on(vm):
                        await steps.do("end the domain", lambda: end_domain(stack, domid))
                    await leave(stack, machine)
                await steps.do("record the machine", lambda: record_reverted(stack, vm, snapshot, copies))
            await stack.database.durable()
            await _remove(stack, replaced, image)
        _refresh(stack, vm, snapshot)


async def _remove(stack: Stack, replaced: Iterable[Ref], image: Ref) -> None:
    """What the machine had before the revert; what cannot be deleted stays for an operator to delete."""
    for vdi in replaced:
        if stack.database.get("VDI", vdi, "VBDs"):
            continue
        try:
            await disks.destroy_vdi(stack, vdi)
        except ApiError as error:
            log.warning("the disk %s stays behind after a revert: %s", vdi, error)
    await images.release(stack, image)


@asynccontextmanager
async def _claimed(
    stack: Stack, context: Context, vdis: Iterable[Ref], operation: str, sr_operation: str
) -> AsyncIterator[None]:
    """Within, nobody else does something to these disks."""
    async with AsyncExitStack() as claims:
        for vdi in vdis:
            await claims.enter_async_context(stack.gates["VDI"].operation(context, vdi, operation))
        for sr in dict.fromkeys(stack.database.get("VDI", vdi, "SR") for vdi in vdis):
            await claims.enter_async_context(stack.gates["SR"].operation(context, sr, sr_operation))
        yield


@asynccontextmanager
async def _standing_still(stack: Stack, vm: Ref, domain: Domain | None) -> AsyncIterator[None]:
    """Within, the guest does nothing."""
    if domain is None or domain.state is not RunState.RUNNING:
        yield
        return
    with failures.acting_on(vm):
        await stack.hypervisor.pause(domain.domid)
        try:
            yield
        finally:
            await go_on(stack, domain)


async def _capture(stack: Stack, steps: Steps, vdis: Iterable[Ref]) -> dict[Ref, Ref]:
    """A snapshot of each disk."""
    copies: dict[Ref, Ref] = {}
    for vdi in vdis:

        async def capture(vdi: Ref = vdi) -> None:
            copies[vdi] = await disks.snapshot_vdi(stack, vdi)

        async def undo(vdi: Ref = vdi) -> None:
            await disks.destroy_vdi(stack, copies[vdi])

        await steps.do("snapshot a disk", capture, undo)
    return copies


async def _clone(stack: Stack, steps: Steps, vdis: Iterable[Ref]) -> dict[Ref, Ref]:
    """A fresh writable copy of each disk."""
    copies: dict[Ref, Ref] = {}
    for vdi in vdis:

        async def clone(vdi: Ref = vdi) -> None:
            copies[vdi] = await disks.clone_vdi(stack, vdi)

        async def undo(vdi: Ref = vdi) -> None:
            await disks.destroy_vdi(stack, copies[vdi])

        await steps.do("clone a disk", clone, undo)
    return copies


def _refresh(stack: Stack, *vms: Ref) -> None:
    for vm in vms:
        refresh_all(stack, vm)
