"""What follows when a guest ends, or is paused, without having been told to by an operation.

`actions_after_shutdown`, `…_reboot` and `…_crash` decide. A guest that keeps ending soon after its start is not
restarted at once each time: from the second such run in a row on, the next start comes two minutes after the last one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import DomainStopped, HypervisorError, RunState, StopReason
from domzero.idl.types import Ref
from domzero.toolstack.alerts import VM_CRASHED, VM_REBOOTED, VM_SHUTDOWN, on_host, tell_of_machine
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import core_dumps
from domzero.toolstack.vm.boot import Boot, boot, end_domain
from domzero.toolstack.vm.operations import HALTED, PAUSED, RUNNING
from domzero.toolstack.vm.owner import Domain, Machine
from domzero.toolstack.vm.placement import choose_host
from domzero.toolstack.vm.reboot import reboot
from domzero.toolstack.vm.rows import leave, refresh_all

log = logging.getLogger(__name__)

SHORT_RUN: Final = 60.0
"""Seconds; a domain that ran for less and is to be restarted has bounced."""
BOUNCE_INTERVAL: Final = 120.0
"""Seconds from the start of a domain that bounced to the next start, if the one before it had bounced too."""


class Reaction(Enum):
    """What is done about a domain that ended by itself."""

    HALT = "halt"
    RESTART = "restart"


_REACTIONS: Mapping[str, Reaction] = {
    "destroy": Reaction.HALT,
    "coredump_and_destroy": Reaction.HALT,
    "preserve": Reaction.HALT,
    "restart": Reaction.RESTART,
    "coredump_and_restart": Reaction.RESTART,
    "rename_restart": Reaction.RESTART,
    "soft_reboot": Reaction.RESTART,
}
_DUMPED = frozenset({"coredump_and_destroy", "coredump_and_restart", "rename_restart"})
"""Actions after a crash that keep the guest's memory. A machine has one domain here, so a crashed one cannot stay under
another name while a new one runs: of `rename_restart` the memory is what stays."""
_NOT_DONE: Mapping[str, str] = {
    **dict.fromkeys(_DUMPED, "its memory cannot be dumped, for its process is gone"),
    "preserve": "it cannot be preserved, for its process is gone",
}
"""Parts of an action that a domain which has ended already does not allow."""
_FIELDS: Mapping[StopReason, str] = {
    StopReason.SHUTDOWN: "actions_after_shutdown",
    StopReason.REBOOT: "actions_after_reboot",
    StopReason.CRASH: "actions_after_crash",
}


def reaction_to(record: Mapping[str, Any], reason: StopReason) -> Reaction:
    """What the machine's settings ask for. A domain that was destroyed stays so."""
    field = _FIELDS.get(reason)
    return _REACTIONS.get(record[field], Reaction.HALT) if field else Reaction.HALT


def bounce_delay(uptime: float, bounces: int) -> float:
    """Seconds until a domain that ran for `uptime` is restarted, when `bounces` before it in a row ended too soon."""
    if uptime >= SHORT_RUN or bounces == 0:
        return 0.0
    return BOUNCE_INTERVAL - uptime


async def react(stack: Stack, machine: Machine) -> None:
    """Make the rows true to what was heard of the domain, and do what is to be done. The caller holds the turn."""
    domain = machine.domain
    if domain is None:
        return
    if stack.database.find("VM", machine.vm) is None:
        stack.machines.forget(machine)
    elif domain.ended.done():
        await follow(stack, machine, domain, domain.ended.result())
    elif domain.state is RunState.CRASHED:
        await _crashed(stack, machine, domain)
    else:
        _record_state(stack, machine.vm, domain)


async def _crashed(stack: Stack, machine: Machine, domain: Domain) -> None:
    """The guest crashed and is still there: keep its memory where that is asked for, and do what follows.

    The machine is shown as paused meanwhile. What is left undone when the daemon ends the next one does again.
    """
    vm, uptime = machine.vm, domain.uptime(stack.clock)
    if stack.database.get("VM", vm, "power_state") == RUNNING:
        tell_of_machine(stack, VM_CRASHED, vm, f"crashed {on_host(stack)}")
    _record_state(stack, vm, domain)
    action = stack.database.get("VM", vm, "actions_after_crash")
    if action == "preserve":
        return
    if action in _DUMPED:
        try:
            await core_dumps.keep(stack, vm, domain.domid)
        except ApiError as error:
            log.warning("the memory of %s, which crashed, is not kept: %s", vm, error)
    if domain.ended.done():  # somebody cut its power meanwhile
        await follow(stack, machine, domain, domain.ended.result())
        return
    try:
        await end_domain(stack, domain.domid)
    except HypervisorError as error:
        log.warning("domain %d, which crashed, cannot be ended: %s", domain.domid, error)
        return
    stopped = DomainStopped(domain.domid, StopReason.CRASH, "the guest panicked")
    await _end_or_restart(stack, machine, domain, stopped, uptime)


async def follow(stack: Stack, machine: Machine, domain: Domain, stopped: DomainStopped) -> None:
    """Do what the machine's settings ask for after its domain ended by itself."""
    _tell(stack.database.record("VM", machine.vm), stopped)
    if stopped.reason is StopReason.CRASH:
        tell_of_machine(stack, VM_CRASHED, machine.vm, f"crashed {on_host(stack)}")
    await _end_or_restart(stack, machine, domain, stopped, domain.uptime(stack.clock))


async def _end_or_restart(
    stack: Stack, machine: Machine, domain: Domain, stopped: DomainStopped, uptime: float
) -> None:
    """Halt or restart a machine whose domain has ended after so many seconds."""
    reaction = reaction_to(stack.database.record("VM", machine.vm), stopped.reason)
    if reaction is Reaction.HALT:
        await leave(stack, machine)
        if stopped.reason in (StopReason.SHUTDOWN, StopReason.REBOOT):
            tell_of_machine(stack, VM_SHUTDOWN, machine.vm, f"was shut down by its guest {on_host(stack)}")
        return
    delay = bounce_delay(uptime, domain.bounces)
    bounces = domain.bounces + 1 if uptime < SHORT_RUN else 0
    if delay == 0:
        try:
            await reboot(stack, machine, bounces=bounces)
            tell_of_machine(stack, VM_REBOOTED, machine.vm, f"was started again {on_host(stack)}")
        except ApiError as error:
            log.warning("%s could not be restarted: %s", machine.vm, error)
        return
    await leave(stack, machine)
    log.warning("%s ended %.0f s after its start again; it is restarted in %.0f s", machine.vm, uptime, delay)
    later = _restart_later(stack, machine.vm, stopped.reason, delay, bounces)
    stack.machines.in_background(later, f"restart of {machine.vm}")


async def _restart_later(stack: Stack, vm: Ref, reason: StopReason, delay: float, bounces: int) -> None:
    """Start the machine after the delay, unless somebody has had it running or changed its settings meanwhile."""
    before = _last_start(stack, vm)
    await stack.clock.sleep(delay)
    found = stack.database.find("VM", vm)
    if found is None or _last_start(stack, vm) != before or reaction_to(found.record, reason) is not Reaction.RESTART:
        return
    context = stack.contexts.background("VM.start")
    try:
        async with stack.gates["VM"].operation(context, vm, "start"), stack.machines.turn(vm) as machine:
            record = stack.database.record("VM", vm)
            host = choose_host(stack, vm, record, force=False)
            await boot(stack, machine, Boot(host, bounces=bounces))
            tell_of_machine(stack, VM_REBOOTED, vm, f"was started again {on_host(stack)}")
    except ApiError as error:
        log.warning("%s could not be restarted: %s", vm, error)
    finally:
        stack.tasks.release(context.task)


def _last_start(stack: Stack, vm: Ref) -> str:
    found = stack.database.find("VM", vm)
    metrics = stack.database.find("VM_metrics", found.record["metrics"]) if found else None
    return str(metrics.record["start_time"]) if metrics else ""


def _record_state(stack: Stack, vm: Ref, domain: Domain) -> None:
    state = RUNNING if domain.state is RunState.RUNNING else PAUSED
    if stack.database.get("VM", vm, "power_state") in (HALTED, state):
        return
    with stack.database.transaction(observed=True) as transaction:
        transaction.update("VM", vm, power_state=state)
    refresh_all(stack, vm)


def _tell(record: Mapping[str, Any], stopped: DomainStopped) -> None:
    level = logging.WARNING if stopped.reason is StopReason.CRASH else logging.INFO
    log.log(level, "%s: domain %d ended (%s) %s", record["uuid"], stopped.domid, stopped.reason.value, stopped.detail)
    not_done = _NOT_DONE.get(record["actions_after_crash"]) if stopped.reason is StopReason.CRASH else None
    if not_done:
        log.warning("%s crashed: %s", record["uuid"], not_done)
