"""The guests of this host as the store knows them: told of their machines, and listened to.

What fails here is logged and keeps no machine from running: a guest can do without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from domzero.engine.changes import Change
from domzero.host.hypervisor.protocol import DomainStatus, GuestPortClosed, HypervisorError
from domzero.host.xenstore.protocol import Xenstore, XenstoreError, home
from domzero.idl.types import Ref
from domzero.toolstack.xenstore.facts import facts_of
from domzero.toolstack.xenstore.nodes import Node, machine_path, nodes_of
from domzero.toolstack.xenstore.publication import found, publish, withdraw
from domzero.toolstack.xenstore.recording import record_report, record_silence, report_of, was_silent
from domzero.toolstack.xenstore.report import TOPICS, UPDATED

if TYPE_CHECKING:
    from domzero.host.guest_port.protocol import GuestPorts
    from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

DOMAINS: Final = "/local/domain"
GATHERING: Final = 0.02
"""Seconds in which what an agent writes is taken together."""
INTERVAL: Final = 0.1
"""Seconds at least between two looks at what the same guest says, which may be saying something all the time."""
INTERVAL_OF_NODE: Final = 0.0008
"""Seconds for each node of a guest's report, when that makes it longer: looking takes some fortieth of that."""
SILENCE: Final = 300.0
"""Seconds without a word after which a guest's metrics are not live any more."""
NEVER: Final = float("-inf")
LOOKING: Final = 30.0
"""Seconds between two looks for guests that have fallen silent."""

_WATCHED: Final = {
    "VM": (
        "name_label", "domid", "memory_target", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max",
        "VCPUs_max", "xenstore_data", "VBDs", "VIFs",
    ),
    "VM_metrics": ("VCPUs_number",),
    "VBD": ("currently_attached", "mode", "type"),
    "VIF": ("currently_attached", "MAC", "MTU"),
}  # fmt: skip
"""Fields that guests are told of."""


@dataclass(slots=True, eq=False)
class Guest:
    """A domain that the store knows."""

    vm: Ref
    domid: int
    uuid: str
    published: dict[str, Node] = field(default_factory=dict)
    heard: float = 0.0
    """When its agent last said that its report is complete, on the monotonic clock."""
    next_look: float = 0.0
    called: float | None = None
    """When its agent was last asked to do something for a caller."""


class Guests:
    """One per toolstack. Until `open` it does nothing: a toolstack may be without a store."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._xenstore: Xenstore | None = None
        self._ports: GuestPorts | None = None
        self._guests: dict[int, Guest] = {}
        self._by_vm: dict[Ref, Guest] = {}
        self._stale: dict[Guest, None] = {}
        self._spoke: dict[Guest, None] = {}
        self._someone_spoke = asyncio.Event()

    # For the composition root

    def open(self, xenstore: Xenstore, ports: GuestPorts) -> None:
        """Begin, before any domain is adopted."""
        self._xenstore, self._ports = xenstore, ports
        self._stack.database.subscribe(self._rows_changed)

    async def listen(self) -> NoReturn:
        """Follow what guests say, for ever."""
        assert self._xenstore is not None
        async with asyncio.TaskGroup() as work:
            work.create_task(self._follow(self._xenstore))
            work.create_task(self._notice_silence())
            while True:
                await self._record_reports(self._xenstore)

    # For the owners of machines

    @property
    def xenstore(self) -> Xenstore | None:
        """The store, where there is one."""
        return self._xenstore

    def appear(self, vm: Ref, domid: int) -> None:
        """A domain is about to be built, or was found running: the store is to know it."""
        if self._xenstore is None:
            return
        uuid = self._stack.database.get("VM", vm, "uuid")
        fell_silent = was_silent(self._stack.database, vm)
        guest = Guest(vm, domid, uuid, heard=NEVER if fell_silent else self._stack.clock.monotonic())
        self._guests[domid] = self._by_vm[vm] = guest
        with _logged(f"the store tells nothing of domain {domid}"):
            if self._xenstore.exists(home(domid)):
                guest.published = found(self._xenstore, domid, nodes_of(facts_of(self._stack.database, vm, domid)))
            self._publish(self._xenstore, guest)
            self._xenstore.introduce(domid)
        self._note(guest)

    def join(self, status: DomainStatus) -> None:
        """A domain that has appeared is there now, and can be spoken with."""
        if self._ports is not None and status.domid in self._guests:
            for socket in status.guest_sockets:
                self._ports.join(status.domid, socket)

    async def port_closed(self, closed: GuestPortClosed) -> None:
        """A program has let go of one of a domain's ports. Another may have it already, who is left alone."""
        if self._ports is None:
            return
        forget = self._ports.closing(closed.domid, closed.socket)
        try:
            if not await self._stack.hypervisor.guest_port_in_use(closed.domid, closed.socket):
                forget()
        except HypervisorError as error:
            log.debug("domain %d has gone with its ports: %s", closed.domid, error)

    def wait_before_call(self, vm: Ref, interval: float) -> float:
        """0 when a machine's agent may be called, which is noted; else the seconds until then."""
        guest, now = self._by_vm.get(vm), self._stack.clock.monotonic()
        if guest is None:
            return 0.0
        if guest.called is not None and now < guest.called + interval:
            return guest.called + interval - now
        guest.called = now
        return 0.0

    def vanish(self, domid: int) -> None:
        """A domain has ended, or never came to be."""
        guest = self._guests.pop(domid, None)
        if self._xenstore is None or guest is None:
            return
        if self._by_vm.get(guest.vm) is guest:
            del self._by_vm[guest.vm]
        self._stale.pop(guest, None)
        self._spoke.pop(guest, None)
        if self._ports is not None:
            self._ports.release(domid)
        with _logged(f"the store still tells of domain {domid}"):
            withdraw(self._xenstore, domid, machine_path(guest.uuid))

    def retain(self, domids: Collection[int]) -> None:
        """Forget every domain but these: those that ended while nobody looked."""
        if self._xenstore is None or not self._xenstore.exists(DOMAINS):
            return
        running = {machine_path(guest.uuid) for guest in self._guests.values()}
        for name in self._xenstore.directory(DOMAINS):
            domid = int(name) if name.isdecimal() and len(name) < 10 else 0
            if domid > 0 and domid not in domids:
                with _logged(f"the store still tells of domain {domid}"):
                    machine = _machine_in(self._xenstore, domid)
                    withdraw(self._xenstore, domid, "" if machine in running else machine)

    # What guests are told

    def _publish(self, xenstore: Xenstore, guest: Guest) -> None:
        wanted = nodes_of(facts_of(self._stack.database, guest.vm, guest.domid))
        publish(xenstore, guest.domid, wanted, guest.published)
        guest.published = wanted

    def _rows_changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            fields = _WATCHED.get(change.row.class_name)
            if fields is None or change.after is None:
                continue
            if change.before is not None and all(change.before[name] == change.after[name] for name in fields):
                continue
            guest = self._by_vm.get(self._machine_of(change))
            if guest is None:
                continue
            if not self._stale:
                asyncio.get_running_loop().call_soon(self._refresh)
            self._stale[guest] = None

    def _machine_of(self, change: Change) -> Ref:
        assert change.after is not None
        name = change.row.class_name
        if name == "VM":
            return change.row.ref
        if name == "VM_metrics":
            return next(iter(self._metrics_of(change.row.ref)), "")
        return str(change.after["VM"])

    def _metrics_of(self, metrics: Ref) -> list[Ref]:
        return [vm for vm in self._by_vm if self._stack.database.get("VM", vm, "metrics") == metrics]

    def _refresh(self) -> None:
        stale, self._stale = self._stale, {}
        for guest in stale:
            if self._xenstore is not None and self._stack.database.find("VM", guest.vm) is not None:
                with _logged(f"the store tells domain {guest.domid} what was"):
                    self._publish(self._xenstore, guest)

    # What guests say

    async def _follow(self, xenstore: Xenstore) -> None:
        async with xenstore.watch(DOMAINS) as events:
            async for path in events:
                self._hear(path.split("/", 4)[3:])

    def _hear(self, parts: list[str]) -> None:
        """Something changed at a path, of which the domain and the rest are given; all domains, where nothing is."""
        if not parts:
            for guest in self._guests.values():
                self._note(guest)
            return
        known = self._guests.get(int(parts[0])) if parts[0].isdecimal() and len(parts[0]) < 10 else None
        if known is None:
            return
        below = parts[1] if len(parts) > 1 else ""
        if below == UPDATED:
            known.heard = self._stack.clock.monotonic()
        if not below or below.split("/", 1)[0] in TOPICS:
            self._note(known)

    def _note(self, guest: Guest) -> None:
        self._spoke[guest] = None
        self._someone_spoke.set()

    async def _record_reports(self, xenstore: Xenstore) -> None:
        """One look at what those say who spoke and were not looked at just now."""
        await self._someone_spoke.wait()
        await self._stack.clock.sleep(GATHERING)
        now = self._stack.clock.monotonic()
        for guest in [guest for guest in self._spoke if guest.next_look <= now]:
            del self._spoke[guest]
            with _logged(f"what domain {guest.domid} says is not recorded"):
                report = report_of(xenstore, guest.domid)
                guest.next_look = now + max(INTERVAL, INTERVAL_OF_NODE * len(report))
                record_report(self._stack, guest.vm, guest.domid, report, heard=guest.heard > now - SILENCE)
        if not self._spoke:
            self._someone_spoke.clear()

    async def _notice_silence(self) -> NoReturn:
        while True:
            await self._stack.clock.sleep(LOOKING)
            since = self._stack.clock.monotonic() - SILENCE
            for guest in tuple(self._guests.values()):
                if guest.heard <= since:
                    record_silence(self._stack, guest.vm)


@contextmanager
def _logged(consequence: str) -> Iterator[None]:
    """What the store refuses within the block is told in the log."""
    try:
        yield
    except XenstoreError as error:
        log.warning("%s: %s", consequence, error.code)


def _machine_in(xenstore: Xenstore, domid: int) -> str:
    """The path of the machine that a domain is said to be. Raises `XenstoreError`."""
    path = f"{home(domid)}/vm"
    return xenstore.read(path).decode("ascii", "replace") if xenstore.exists(path) else ""
