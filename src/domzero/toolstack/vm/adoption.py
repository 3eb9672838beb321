"""After a start of the daemon: rows and domains agree again, and what was half done is finished or undone.

What the rows say is what was acknowledged or intended; what the hypervisor found is what is.
`scheduled_to_be_resident_on` marks a start, resume or reboot under way, as does Running without a domain number;
`suspend_VDI` of a machine that is not suspended marks a save under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import DomainStatus, HypervisorError, RunState
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import images
from domzero.toolstack.vm.attachment import attached_fields
from domzero.toolstack.vm.boot import Sizes, end_domain, record_running
from domzero.toolstack.vm.device_names import parse_vbd_position
from domzero.toolstack.vm.operations import HALTED, PAUSED, RUNNING, SUSPENDED
from domzero.toolstack.vm.owner import Machine
from domzero.toolstack.vm.reboot import reboot
from domzero.toolstack.vm.rows import leave, record_gone, refresh_all
from domzero.toolstack.vm.specification import as_booted

log = logging.getLogger(__name__)

STATES = {RunState.RUNNING: RUNNING, RunState.PAUSED: PAUSED}
ANSWER_SECONDS = 5.0
"""How long a hypervisor may take to tell of a domain that it has just taken over."""


def machine_of(stack: Stack, status: DomainStatus) -> Ref | None:
    """Whose domain it is; None for a machine that is not known (any more)."""
    try:
        return stack.database.by_uuid("VM", status.uuid)
    except ApiError:
        return None


def last_domid(stack: Stack, statuses: list[DomainStatus], recorded: str) -> int:
    """The highest domain number known to have been given out. Clients can write what is `recorded`."""
    sound = recorded.isascii() and recorded.isdecimal() and len(recorded) < 10
    numbers = [int(recorded) if sound else 0]
    numbers += [status.domid for status in statuses]
    numbers += [row.record["domid"] for row in stack.database.rows("VM").values()]
    return max(numbers)


async def remove_strays(stack: Stack, statuses: list[DomainStatus], owned: set[int]) -> None:
    """End the domains that belong to no machine: what a killed operation began and nobody knows of."""
    for status in statuses:
        if status.domid not in owned:
            log.warning("domain %d (%s) belongs to no machine; it is ended", status.domid, status.uuid)
            await _end(stack, status.domid)


def unsettled(stack: Stack, owned: set[Ref]) -> list[Ref]:
    """The machines to look at: those that have a domain, should have one, or were being worked on."""
    found = set(owned)
    for vm, row in stack.database.rows("VM").items():
        record = row.record
        if record["is_control_domain"]:
            continue
        if record["power_state"] not in (HALTED, SUSPENDED) or record["scheduled_to_be_resident_on"] != NULL_REF:
            found.add(vm)
    return sorted(found)


async def settle(stack: Stack, machine: Machine) -> None:
    """Finish or undo what the last daemon left of one machine, whose turn the caller holds."""
    vm = machine.vm
    record = stack.database.record("VM", vm)
    alive = machine.domain is not None and not machine.domain.ended.done()
    state = record["power_state"]
    between_domains = state == RUNNING and record["domid"] < 0
    begun = between_domains or record["scheduled_to_be_resident_on"] != NULL_REF
    if alive:
        await _settle_alive(stack, machine, record, begun=begun)
    elif state == SUSPENDED:
        _forget_intent(stack, vm)
    elif state == HALTED:
        record_gone(stack, vm)
    elif images.is_complete(stack, record["suspend_VDI"]):
        log.info("%s had been saved when the daemon ended; it is suspended", vm)
        await leave(stack, machine, SUSPENDED)
    else:
        await _settle_gone(stack, machine, record, begun=begun)


async def _settle_alive(stack: Stack, machine: Machine, record: Mapping[str, Any], *, begun: bool) -> None:
    assert machine.domain is not None
    vm, domain, state = machine.vm, machine.domain, record["power_state"]
    image = record["suspend_VDI"]
    if state in (HALTED, SUSPENDED) and not begun:
        log.warning("%s is %s, yet domain %d runs; it is ended", vm, state.lower(), domain.domid)
        stack.machines.forget(machine)
        await _end(stack, domain.domid)
        return
    if state == RUNNING and domain.state is RunState.PAUSED:
        log.info("%s was standing still for a snapshot or the like; it goes on", vm)
        await _unpause(stack, domain.domid)
    status = await _status(stack, domain.domid)
    if status is None:
        return
    booted = as_booted(record) if state == SUSPENDED else record
    kept = state == SUSPENDED or domain.domid == record["domid"]
    target = (kept and record["memory_target"]) or booted["memory_dynamic_max"]
    # A crash is its owner's to tell of.
    shown = (RUNNING, PAUSED) if status.state is RunState.CRASHED else (STATES[status.state],)
    agrees = domain.domid == record["domid"] and state in shown
    if begun or image != NULL_REF or not agrees:
        sizes = Sizes(target, booted["VCPUs_at_startup"])
        started = state != SUSPENDED and domain.domid != record["domid"]
        record_running(stack, vm, sizes, status, stack.host, started=started)
        await images.release(stack, image)
    await _settle_disks(stack, vm, domain.domid)
    refresh_all(stack, vm)


async def _settle_disks(stack: Stack, vm: Ref, domid: int) -> None:
    """A disk may have gone in or out just when the last daemon was killed; who believes that a disk is free that is
    not would give it to a second machine."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            present = (await stack.hypervisor.statistics(domid)).disks
    except (HypervisorError, TimeoutError) as error:
        log.warning("which disks domain %d has could not be found out: %s", domid, error)
        return
    for vbd in stack.database.get("VM", vm, "VBDs"):
        drive = stack.database.record("VBD", vbd)
        attached = parse_vbd_position(drive["userdevice"]) in present
        if drive["type"] == "Disk" and drive["currently_attached"] != attached:
            log.info("drive %s of %s turns out to be %s", vbd, vm, "plugged" if attached else "unplugged")
            fields = attached_fields(drive) if attached else {"currently_attached": False, "device": ""}
            with stack.database.transaction(observed=True) as transaction:
                transaction.update("VBD", vbd, **fields)


async def _settle_gone(stack: Stack, machine: Machine, record: Mapping[str, Any], *, begun: bool) -> None:
    """The machine ran, or was to run, and has no domain. Why is not known: only a reboot under way is finished."""
    vm, image = machine.vm, record["suspend_VDI"]
    if begun:
        log.info("%s was being rebooted when the daemon ended; it is booted", vm)
        try:
            await reboot(stack, machine)
        except ApiError as error:
            log.warning("%s could not be booted: %s", vm, error)
    else:
        log.warning("%s ended while the daemon was away", vm)
        await leave(stack, machine)
    await images.release(stack, image)


def _forget_intent(stack: Stack, vm: Ref) -> None:
    with stack.database.transaction() as transaction:
        transaction.update("VM", vm, scheduled_to_be_resident_on=NULL_REF)


async def _end(stack: Stack, domid: int) -> None:
    try:
        await end_domain(stack, domid)
    except HypervisorError as error:
        log.warning("domain %d could not be ended: %s", domid, error)


async def _unpause(stack: Stack, domid: int) -> None:
    try:
        await stack.hypervisor.unpause(domid)
    except HypervisorError as error:
        log.warning("domain %d could not be let go on: %s", domid, error)


async def _status(stack: Stack, domid: int) -> DomainStatus | None:
    """The domain as it is now; None when it has just ended, which its owner hears of."""
    try:
        return await stack.hypervisor.status(domid)
    except HypervisorError:
        return None
