"""Networks without rights: each machine reaches out by itself, through QEMU's user-mode stack."""

from __future__ import annotations

from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network.interfaces import InterfaceFacts, describe
from domzero.host.network.protocol import CardSpec, InterfaceInfo, NetworkError, TrafficCounters
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

    async def interfaces(self) -> list[InterfaceInfo]:
        return await self._thread.run(lambda links: describe(links, self._facts))

    async def connect(self, card: CardSpec) -> TapBackend | UserBackend:  # noqa: ARG002 - nothing to be made
        return UserBackend()

    async def disconnect(self, domid: int, slot: int) -> None:
        """Nothing is there that could be removed."""

    async def retain(self, domids: set[int]) -> None:
        """Nothing is there that could be removed."""

    async def counters(self, domid: int, slot: int) -> TrafficCounters:
        """Raises `NetworkError`: user-mode networking keeps no counters."""
        raise NetworkError(f"the traffic of card {slot} of domain {domid} is not counted in user mode")
