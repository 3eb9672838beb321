"""What the rows of a machine say when its domain has gone, and which other rows to look at again."""

from __future__ import annotations

import logging
from typing import Any

from domzero.engine.transactions import Transaction
from domzero.host.network.protocol import NetworkError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.figures import come_to_rest
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.vm.consoles import close_consoles
from domzero.toolstack.vm.operations import HALTED, SUSPENDED
from domzero.toolstack.vm.owner import Machine
from domzero.toolstack.vm.specification import nic_slot

log = logging.getLogger(__name__)


async def leave(stack: Stack, machine: Machine, power_state: str = HALTED) -> None:
    """The domain of the machine, whose turn the caller holds, is gone: remove what served it and say so."""
    domid = machine.domain.domid if machine.domain is not None else stack.database.get("VM", machine.vm, "domid")
    stack.machines.forget(machine)
    if domid > 0:
        await disconnect_cards(stack, machine.vm, domid)
    record_gone(stack, machine.vm, power_state)


async def disconnect_cards(stack: Stack, vm: Ref, domid: int) -> None:
    """Remove the host's ends of the cards that a domain had; what cannot be removed now goes at the next start."""
    for vif in stack.database.get("VM", vm, "VIFs"):
        slot = nic_slot(stack.database.record("VIF", vif))
        try:
            await stack.network.disconnect(domid, slot)
        except NetworkError as error:
            log.warning("card %d of domain %d is left over: %s", slot, domid, error)


def record_gone(stack: Stack, vm: Ref, power_state: str = HALTED) -> None:
    """The one transaction after which everybody sees a machine without a domain.

    A suspended machine keeps its devices: they will be attached again when it is resumed.
    """
    database = stack.database
    with database.transaction(observed=True) as transaction:
        changes: dict[str, Any] = {} if power_state == SUSPENDED else {"suspend_VDI": NULL_REF}
        transaction.update(
            "VM",
            vm,
            power_state=power_state,
            resident_on=NULL_REF,
            scheduled_to_be_resident_on=NULL_REF,
            domid=-1,
            domarch="",
            **changes,
        )
        close_consoles(stack, transaction, vm)
        metrics = database.get("VM", vm, "metrics")
        if database.find("VM_metrics", metrics) is not None:
            transaction.update("VM_metrics", metrics, current_domain_type="unspecified")
        come_to_rest(stack, transaction, vm)
        if power_state == HALTED:
            remove_guest_metrics(stack, transaction, vm)
            detach_devices(stack, transaction, vm)
    refresh_all(stack, vm)


def detach_devices(stack: Stack, transaction: Transaction, vm: Ref) -> None:
    """Drives and cards are attached no more."""
    record = stack.database.record("VM", vm)
    for vbd in record["VBDs"]:
        transaction.update("VBD", vbd, currently_attached=False, device="")
    for vif in record["VIFs"]:
        transaction.update("VIF", vif, currently_attached=False)


def remove_guest_metrics(stack: Stack, transaction: Transaction, vm: Ref) -> None:
    """What the last guest said of itself no longer holds."""
    guest = stack.database.get("VM", vm, "guest_metrics")
    if stack.database.find("VM_guest_metrics", guest) is not None:
        transaction.destroy("VM_guest_metrics", guest)
    if guest != NULL_REF:
        transaction.update("VM", vm, guest_metrics=NULL_REF)


def refresh_all(stack: Stack, vm: Ref) -> None:
    """Compute anew what the machine, its drives, their disks, other machines' drives of these, and its cards allow."""
    database = stack.database
    found = database.find("VM", vm)
    if found is None:
        return
    stack.gates["VM"].refresh(vm)
    for vbd in found.record["VBDs"]:
        stack.gates["VBD"].refresh(vbd)
        vdi = database.get("VBD", vbd, "VDI")
        stack.gates["VDI"].refresh(vdi)
        disks.refresh_sharers(stack, vdi)
    for vif in found.record["VIFs"]:
        stack.gates["VIF"].refresh(vif)
