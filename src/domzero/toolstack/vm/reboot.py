"""A new domain in place of one that has gone, without the machine being halted in between."""

from __future__ import annotations

import asyncio

from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.boot import Boot, boot
from domzero.toolstack.vm.owner import Machine
from domzero.toolstack.vm.rows import disconnect_cards, record_gone


async def reboot(stack: Stack, machine: Machine, *, bounces: int = 0) -> None:
    """Boot the machine, whose turn the caller holds and whose domain has ended, on the host where it was.

    In between it is Running without a domain; a daemon that finds it so boots it. When booting fails it is halted
    and the error passes on. Cancelling the call, as a daemon does that ends, leaves the boot to the next one.
    """
    vm = machine.vm
    domid = machine.domain.domid if machine.domain is not None else stack.database.get("VM", vm, "domid")
    stack.machines.forget(machine)
    with stack.database.transaction(observed=True) as transaction:
        transaction.update("VM", vm, domid=-1)
    try:
        await stack.database.durable()
        if domid > 0:
            await disconnect_cards(stack, vm, domid)
        await boot(stack, machine, Boot(stack.host, bounces=bounces))
    except asyncio.CancelledError:
        raise
    except BaseException:
        record_gone(stack, vm)
        raise
