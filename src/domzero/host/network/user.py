"""Networks without rights: each machine reaches out by itself, through QEMU's user-mode stack."""

from __future__ import annotations

from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network.interfaces import InterfaceFacts, describe
from domzero.host.network.plan import LockingMode, NetworkPlan
from domzero.host.network.protocol import CardSpec, DeviceState, InterfaceInfo, NetworkError, TrafficCounters
from domzero.host.network.worker import NetworkThread


class UserNetwork:
    """Implements `NetworkBackend`. Machines cannot reach each other, and nobody counts their traffic."""

    def __init__(self, *, facts: InterfaceFacts | None = None) -> None:
        self._facts = facts or InterfaceFacts()
        self._thread = NetworkThread()

    async def open(self) -> None:
        await self._thread.open()

    async def close(self) -> None:
        await self._thread.close()

    def mode(self) -> str:
        return "user"

    async def apply(self, plan: NetworkPlan) -> None:
        """Networks of this host alone need nothing to be made; whatever else is asked for raises `NetworkError`."""
        check_plan(plan)

    async def devices(self) -> list[DeviceState]:
        """None: nothing is ever made."""
        return []

    async def interfaces(self) -> list[InterfaceInfo]:
        return await self._thread.run(lambda links: describe(links, self._facts))

    async def connect(self, card: CardSpec) -> TapBackend | UserBackend:
        check_card(card)
        return UserBackend()

    async def configure(self, card: CardSpec) -> None:
        """Raises `NetworkError` for rules that only a network made with rights could keep."""
        check_card(card)

    async def disconnect(self, domid: int, slot: int) -> None:
        """Nothing is there that could be removed."""

    async def retain(self, domids: set[int]) -> None:
        """Nothing is there that could be removed."""

    async def counters(self, domid: int, slot: int) -> TrafficCounters:
        """Raises `NetworkError`: user-mode networking keeps no counters."""
        raise NetworkError(f"the traffic of card {slot} of domain {domid} is not counted in user mode")


def check_plan(plan: NetworkPlan) -> None:
    """Raises `NetworkError` when a plan asks for more than networks that lead nowhere."""
    wanted = [
        *(f"interface {interface.device}" for interface in plan.interfaces if interface.settings),
        *(f"bond {bond.name}" for bond in plan.bonds),
        *(f"uplink {bridge.uplink} of network {bridge.name}" for bridge in plan.bridges if bridge.uplink),
    ]
    if wanted:
        raise NetworkError(f"user-mode networking cannot set up the {wanted[0]}: that needs root's rights")


def check_card(card: CardSpec) -> None:
    """Raises `NetworkError` when a card is to be restricted, which user-mode networking could not do."""
    if card.rules.locking is not LockingMode.UNLOCKED or card.rules.kilobytes_per_second:
        raise NetworkError(f"user-mode networking cannot restrict card {card.slot} of domain {card.domid}")
