"""The host's network as one thing that is changed by one call at a time: rows and host move together or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from domzero.engine.transactions import Transaction
from domzero.host.network.plan import BridgeSpec, NetworkPlan
from domzero.host.network.protocol import NetworkError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.network_plan import internal_bridge, plan_for, rows_of, settled

if TYPE_CHECKING:
    from domzero.idl.records import Record
    from domzero.toolstack.network.probation import Probation
    from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class _TriedOutError(Exception):
    """Ends a transaction that only had to show what it would make of the rows."""


class Networking:
    """Which plan is in force, and how it is replaced. One per stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.lock = asyncio.Lock()
        """Held while the host's network is changed."""
        self.present: frozenset[str] | None = None
        """The host's interfaces at the last look; None before the first."""
        self.probation: Probation | None = None
        """The change of the management interface that has not proven itself yet."""
        self.management_disabled = False
        """Whether no interface carries management, until one is given it by a call."""
        self._in_force(NetworkPlan())

    def _in_force(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self._bridges: dict[str, BridgeSpec] = {bridge.name: bridge for bridge in plan.bridges}

    def names(self) -> set[str]:
        """The devices and bridges of the plan."""
        plan = self.plan
        devices = {spec.device for spec in plan.interfaces}
        return devices | {spec.name for spec in plan.bonds} | self._bridges.keys()

    async def close(self) -> None:
        """Stop what goes on in the background."""
        if self.probation is not None:
            await self.probation.cancel()

    async def reshape(self, change: Callable[[Transaction], Result], replugged: Collection[str] = ()) -> Result:
        """Change rows and make the host's network follow; the caller holds the lock.

        `change` is called twice: once to learn the plan, which is undone, and once for good when the host has
        followed. `replugged` names the devices and bridges whose settings take effect anew. When the host cannot, or
        the disk does not take the rows, nothing has changed. Raises `NetworkError`, and what `change` raises.
        """
        before = self.plan
        await self._apply(self._outcome(change, replugged))
        try:
            with self._stack.database.transaction() as transaction:
                result = change(transaction)
            await self._stack.database.durable()
        except BaseException:
            await self._go_back(before)
            raise
        return result

    def _outcome(self, change: Callable[[Transaction], object], replugged: Collection[str]) -> NetworkPlan:
        """The plan that follows from a change."""
        try:
            with self._stack.database.transaction() as transaction:
                change(transaction)
                plan = settled(self._fresh(), self.plan, replugged)
                raise _TriedOutError
        except _TriedOutError:
            return plan

    def _fresh(self, wanted: Collection[Ref] = ()) -> NetworkPlan:
        return plan_for(rows_of(self._stack.database, self._stack.host, wanted=wanted, present=self.present))

    async def _apply(self, plan: NetworkPlan) -> None:
        if plan == self.plan:
            return
        await self._stack.network.apply(plan)
        self._in_force(plan)

    async def _go_back(self, plan: NetworkPlan) -> None:
        try:
            await self._apply(plan)
        except NetworkError as error:
            log.error("the host's network could not be put back: %s", error)

    async def bring_up(self) -> None:
        """Make the host's network what the rows say, at the start. What cannot be is logged; the host serves on."""
        async with self.lock:
            plan = self._fresh()
            try:
                await self._stack.network.apply(plan)
            except NetworkError as error:
                log.error("the host's network could not be set up as configured: %s", error)
                return
            self._in_force(plan)

    async def tidy(self) -> None:
        """Take down what no row asks for any more, such as the DHCP server of a network without cards."""
        async with self.lock:
            plan = settled(self._fresh(), self.plan, ())
            try:
                await self._apply(plan)
            except NetworkError as error:
                log.warning("the host's network could not be tidied: %s", error)

    async def join(self, network: Ref, vm: Ref) -> None:
        """Have the network on this host, as a card of a machine is about to join it: its PIF plugged, or its own bridge
        known. Raises `NetworkError`.
        """
        if self._is_ready(network, vm):
            return
        async with self.lock:
            if self._is_ready(network, vm):
                return
            pif = self._unplugged_pif(network)
            if pif is None:
                await self._join_internal(network, vm)
                return
            record = self._stack.database.record("PIF", pif)
            bridge = self._stack.database.get("network", network, "bridge")
            await self.reshape(
                lambda transaction: transaction.update("PIF", pif, currently_attached=True), {record["device"], bridge}
            )

    def _is_ready(self, network: Ref, vm: Ref) -> bool:
        record = self._stack.database.record("network", network)
        if self._unplugged_pif(network) is not None:
            return False
        present = self._bridges.get(record["bridge"])
        if not record["managed"] or (present is not None and present.uplink):
            return True
        wanted = internal_bridge(record, busy=True)
        if present is None or present == wanted:
            return present is not None
        # Settings change only while nobody is on the network; a DHCP server comes with the first card.
        return self._is_busy(record, vm) and (wanted.dhcp_server is None) == (present.dhcp_server is None)

    def _is_busy(self, record: Record, vm: Ref) -> bool:
        """Whether cards of other machines are on the network: a machine's own count already while it starts."""
        vifs = (self._stack.database.record("VIF", vif) for vif in record["VIFs"])
        return any(vif["currently_attached"] and vif["VM"] != vm for vif in vifs)

    def _unplugged_pif(self, network: Ref) -> Ref | None:
        """The PIF of the network on this host that domzero may plug and has not."""
        database = self._stack.database
        for pif in database.get("network", network, "PIFs"):
            record = database.record("PIF", pif)
            if record["host"] == self._stack.host and record["managed"] and not record["currently_attached"]:
                return str(pif) if record["bond_slave_of"] == NULL_REF else None
        return None

    async def _join_internal(self, network: Ref, vm: Ref) -> None:
        record = self._stack.database.record("network", network)
        anew = () if self._is_busy(record, vm) else (record["bridge"],)
        plan = settled(self._fresh((network,)), self.plan, anew)
        try:
            await self._apply(plan)
        except NetworkError as error:
            without = _without_dhcp(plan, record["bridge"])
            if without == plan:
                raise
            log.warning("machines on %s will get no addresses from this host: %s", record["bridge"], error)
            await self._apply(without)


def _without_dhcp(plan: NetworkPlan, bridge: str) -> NetworkPlan:
    return replace(
        plan, bridges=tuple(replace(spec, dhcp_server=None) if spec.name == bridge else spec for spec in plan.bridges)
    )
