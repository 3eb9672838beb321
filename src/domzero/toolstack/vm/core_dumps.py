"""What crashed guests had in their memory: ELF cores in image files, each a VDI of type `crashdump` and a crashdump.

Until a core is complete its VDI is not managed and no crashdump refers to it; what a daemon left so is removed at the
next start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.idl.types import VOID, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.storage.repositories import asking, attached
from domzero.toolstack.vm import failures, images

log = logging.getLogger(__name__)

LABEL = "VM.dump_core"
"""The name of the task."""
BESIDES = 256 << 20
"""Bytes that a core may have besides the machine's memory: the screen's, firmware, registers."""
MOST_KEPT = 8
"""Cores of one machine. A guest that crashes again and again, perhaps on purpose, fills no repository of others."""


async def keep(stack: Stack, vm: Ref, domid: int) -> None:
    """Write the memory of a domain whose turn the caller holds into a new crashdump of the machine.

    A task shows how far it is, and can be cancelled. Raises VM_NO_CRASHDUMP_SR where no repository can hold it,
    OPERATION_NOT_ALLOWED where the machine has as many as it may have; after that or any other failure nothing is left.
    """
    context = stack.contexts.background(LABEL)
    await stack.tasks.carry_out(context.task, _keep(stack, context, vm, domid), VOID)


async def _keep(stack: Stack, context: Context, vm: Ref, domid: int) -> None:
    record = stack.database.record("VM", vm)
    limit = record["memory_static_max"] + BESIDES
    with context.task.cancellable():
        async with Steps() as steps:
            core = await steps.do("remember the core", lambda: _remember(stack, vm))
            steps.on_failure("discard the core", lambda: discard(stack, core))
            await steps.do("make the core", lambda: _make(stack, core))
            file = (await disks.disk_source(stack, core)).path
            with failures.acting_on(vm):
                await steps.do(
                    "dump the memory",
                    lambda: stack.hypervisor.dump_core(domid, file, limit, context.task.set_progress),
                )
            await steps.do("record the core", lambda: _complete(stack, vm, core))


def choose_repository(stack: Stack, vm: Ref) -> Ref:
    """Where the core is to be kept: where the pool says, the host, or where disks are by default.

    Raises VM_NO_CRASHDUMP_SR where none of these can hold it.
    """
    usable = images.holding_images(stack, _candidates(stack))
    sr = images.first_with_room(stack, usable, stack.database.get("VM", vm, "memory_static_max"))
    if sr is None:
        raise ApiError("VM_NO_CRASHDUMP_SR", vm)
    return sr


def _candidates(stack: Stack) -> Iterator[Ref]:
    yield stack.database.get("pool", stack.pool, "crash_dump_SR")
    yield stack.database.get("host", stack.host, "crash_dump_sr")
    yield stack.database.get("pool", stack.pool, "default_SR")


async def _remember(stack: Stack, vm: Ref) -> Ref:
    """The row of a core that is about to be written; on disk when this returns, so that no file is nobody's."""
    record = stack.database.record("VM", vm)
    if len(record["crash_dumps"]) >= MOST_KEPT:
        raise ApiError("OPERATION_NOT_ALLOWED", f"The machine has {MOST_KEPT} crash dumps; destroy some first.")
    sr = choose_repository(stack, vm)
    uuid = stack.database.new_uuid()
    with stack.database.transaction() as transaction:
        core = transaction.create(
            "VDI",
            {
                "uuid": uuid,
                "location": uuid,
                "SR": sr,
                "name_label": "Crash dump",
                "name_description": f"Memory of {record['name_label']}, {moment(stack.clock.now())}",
                "type": "crashdump",
                "managed": False,
                "sharable": False,
                "read_only": True,
                "other_config": {"vm_uuid": record["uuid"]},
            },
        )
    await stack.database.durable()
    return core


async def _make(stack: Stack, core: Ref) -> None:
    record = stack.database.record("VDI", core)
    driver, repository = attached(stack, record["SR"])
    await asking(driver.create_image(repository, record["uuid"]))


async def _complete(stack: Stack, vm: Ref, core: Ref) -> None:
    await disks.update_vdi(stack, core)
    with stack.database.transaction() as transaction:
        transaction.update("VDI", core, managed=True)
        transaction.create("crashdump", {"VM": vm, "VDI": core})
    disks.refresh_operations(stack, (core,))
    await stack.database.durable()


async def discard(stack: Stack, core: Ref) -> None:
    """Remove a core. One that cannot be removed now is left for the next start."""
    try:
        await disks.destroy_vdi(stack, core)
    except ApiError as error:
        log.warning("the unfinished core %s stays behind: %s", core, error)


async def discard_unfinished(stack: Stack) -> None:
    """At a start: remove the cores that the last daemon had begun."""
    for ref, row in list(stack.database.rows("VDI").items()):
        if row.record["type"] == "crashdump" and not row.record["managed"]:
            await discard(stack, ref)
