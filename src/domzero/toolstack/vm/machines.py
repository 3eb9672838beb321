"""The machines of this host that run or are being worked on, and the hypervisor's events on their way to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from domzero.host.hypervisor.protocol import DomainEvent, DomainStatus, DomainStopped, GuestPortClosed, RunState
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm import adoption, guest_events
from domzero.toolstack.vm.admission import bad_power_state
from domzero.toolstack.vm.owner import Domain, Machine

log = logging.getLogger(__name__)

LAST_DOMID: Final = "last_domid"
"""The key of the control domain's other_config that keeps domain numbers from being given out twice."""


class Machines:
    """Made once by the composition root, which hands `listener` to `Hypervisor.open` and then calls `adopt`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._machines: dict[Ref, Machine] = {}
        self._by_domid: dict[int, Machine] = {}
        self._early: list[DomainEvent] | None = []
        """Events that came before `adopt` knew whose they are."""
        self._reacting: dict[Machine, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._last_domid = 0
        self._closed = False

    # For the composition root

    def listener(self, event: DomainEvent) -> None:
        """Note what the hypervisor says and have the machine's owner deal with it when its turn comes."""
        if self._early is not None:
            self._early.append(event)
            return
        machine = self._by_domid.get(event.domid)
        if machine is None or machine.domain is None or machine.domain.domid != event.domid:
            log.debug("nobody waits for %s", event)
            return
        domain = machine.domain
        if isinstance(event, GuestPortClosed):
            if not self._closed:
                self.in_background(self._stack.guests.port_closed(event), f"port of domain {event.domid}")
            return
        if not isinstance(event, DomainStopped):
            domain.state = event.state
        elif not domain.ended.done():
            domain.ended.set_result(event)
        if domain.status is not None and not self._closed:
            self._wake(machine)

    async def adopt(self, statuses: list[DomainStatus]) -> None:
        """Make rows and domains agree after a start of the daemon: see `adoption`. Events are handled from now on."""
        stack, database = self._stack, self._stack.database
        control = database.find("VM", database.get("host", stack.host, "control_domain"))
        recorded = control.record["other_config"].get(LAST_DOMID, "") if control else ""
        self._last_domid = adoption.last_domid(stack, statuses, recorded)
        for status in statuses:
            vm = adoption.machine_of(stack, status)
            if vm is not None and self._owner(vm).domain is None:
                self.expect(self._owner(vm), Domain(status.domid, stack.clock.monotonic()))
                self.built(self._owner(vm), status)
        early, self._early = self._early, None
        for event in early or ():
            self.listener(event)
        stack.guests.retain(self._by_domid.keys())
        await adoption.remove_strays(stack, statuses, set(self._by_domid))
        for vm in adoption.unsettled(stack, set(self._machines)):
            async with self.turn(vm) as machine:
                await self._logged(adoption.settle(stack, machine))
        for machine in list(self._machines.values()):
            if machine.domain is not None and machine.domain.state is RunState.CRASHED:
                self._wake(machine)

    async def close(self) -> None:
        """Stop reacting; domains go on, and what happens to them is left to the next daemon."""
        self._closed = True
        work = [*self._reacting.values(), *self._background]
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work)

    # For operations

    @asynccontextmanager
    async def turn(self, vm: Ref) -> AsyncIterator[Machine]:
        """Have the machine alone, running or not."""
        machine = self._owner(vm)
        try:
            async with machine.turn():
                yield machine
        finally:
            self._forget_if_idle(machine)

    @asynccontextmanager
    async def running(self, vm: Ref) -> AsyncIterator[Domain]:
        """Have the machine alone together with its living domain.

        Raises VM_BAD_POWER_STATE when it has none (any more): it may have ended since the operation was admitted.
        """
        async with self.turn(vm) as machine:
            yield self.living(machine)

    def living(self, machine: Machine) -> Domain:
        """The domain of a machine whose turn is held. Raises VM_BAD_POWER_STATE when it is gone."""
        if machine.domain is None or machine.domain.ended.done():
            raise bad_power_state(machine.vm, ("Running", "Paused"), "Halted")
        return machine.domain

    def domain(self, vm: Ref) -> Domain | None:
        """The machine's domain as last heard of, for those who only look."""
        machine = self._machines.get(vm)
        return machine.domain if machine else None

    def is_taken(self, vm: Ref) -> bool:
        """Whether somebody has the machine's turn."""
        machine = self._machines.get(vm)
        return machine is not None and machine.is_taken

    def status(self, vm: Ref) -> DomainStatus | None:
        """Where the machine's screen and serial line are; None when it does not run here."""
        domain = self.domain(vm)
        return domain.status if domain is not None and not domain.ended.done() else None

    def next_domid(self) -> int:
        """A domain number never used before. Make it durable before a domain gets it."""
        self._last_domid += 1
        database = self._stack.database
        control = database.get("host", self._stack.host, "control_domain")
        if control != NULL_REF:
            with database.transaction() as transaction:
                config = {**database.get("VM", control, "other_config"), LAST_DOMID: str(self._last_domid)}
                transaction.update("VM", control, other_config=config)
        return self._last_domid

    # For whoever has the turn

    def expect(self, machine: Machine, domain: Domain) -> None:
        """Events of this domain number now belong to the machine, though only `built` has them dealt with."""
        machine.domain = domain
        self._by_domid[domain.domid] = machine
        self._stack.guests.appear(machine.vm, domain.domid)

    def built(self, machine: Machine, status: DomainStatus) -> None:
        """The domain is there; what happened to it since `expect` is dealt with when the turn is given up."""
        assert machine.domain is not None
        machine.domain.status = status
        machine.domain.state = machine.domain.state or status.state
        self._stack.guests.join(status)
        if machine.domain.ended.done() or machine.domain.state is not status.state:
            self._wake(machine)

    def forget(self, machine: Machine) -> None:
        """The domain is gone, or never came to be; nobody is to react to it."""
        if machine.domain is not None:
            self._by_domid.pop(machine.domain.domid, None)
            self._stack.guests.vanish(machine.domain.domid)
            machine.domain = None

    def in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do something nobody waits for; `close` cancels it."""
        task = asyncio.get_running_loop().create_task(self._logged(work), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Inside

    def _owner(self, vm: Ref) -> Machine:
        machine = self._machines.get(vm)
        if machine is None:
            machine = self._machines[vm] = Machine(vm)
        return machine

    def _forget_if_idle(self, machine: Machine) -> None:
        if machine.users == 0 and machine.domain is None:
            self._machines.pop(machine.vm, None)

    def _wake(self, machine: Machine) -> None:
        if machine in self._reacting:
            machine.unheard = True
            return
        task = asyncio.get_running_loop().create_task(self._logged(self._react(machine)), name=f"owner of {machine.vm}")
        self._reacting[machine] = task

    async def _react(self, machine: Machine) -> None:
        machine.unheard = True
        try:
            while machine.unheard:
                async with self.turn(machine.vm):
                    machine.unheard = False
                    await guest_events.react(self._stack, machine)
        finally:
            # Not in a callback of the task: what is heard between its end and the callback would be lost.
            del self._reacting[machine]

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("work on a machine failed")
