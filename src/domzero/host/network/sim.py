"""A network that only pretends, for the simulated hypervisor."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.host.clock import Clock
from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network.protocol import CardSpec, InterfaceInfo, NetworkError, TrafficCounters

RECEIVED_RATE = 2000
SENT_RATE = 500
"""Bytes per second of each connected card."""


def _interface(number: int) -> InterfaceInfo:
    first = number == 0
    return InterfaceInfo(
        name=f"eth{number}",
        mac=f"02:00:5e:00:53:{number:02x}",
        mtu=1500,
        carrier=True,
        speed=1000,
        duplex=True,
        vendor_id="1af4",
        vendor_name="Simulated",
        device_id="1000",
        device_name="Simulated network card",
        pci_bus_path=f"0000:00:{number + 3:02x}.0",
        addresses=("192.0.2.10/24",) if first else (),
        gateway="192.0.2.1" if first else "",
        dns=("192.0.2.53",) if first else (),
    )


INTERFACES = (_interface(0), _interface(1))
"""Two cards with addresses reserved for documentation (RFC 5737, RFC 7042)."""


@dataclass(frozen=True, slots=True)
class _Connected:
    card: CardSpec
    since: float


class SimNetwork:
    """Implements `NetworkBackend`. Each card's traffic follows the clock; `bridges` says what there would be."""

    def __init__(self, clock: Clock, interfaces: tuple[InterfaceInfo, ...] = INTERFACES) -> None:
        self._clock = clock
        self._interfaces = interfaces
        self._cards: dict[tuple[int, int], _Connected] = {}

    async def open(self) -> None:
        """Nothing can be left of an earlier daemon."""

    async def close(self) -> None:
        """The cards stay, as long as the object does."""

    def mode(self) -> str:
        return "sim"

    def bridges(self) -> frozenset[str]:
        """The bridges that cards are on."""
        return frozenset(connected.card.bridge for connected in self._cards.values() if connected.card.bridge)

    async def interfaces(self) -> list[InterfaceInfo]:
        return list(self._interfaces)

    async def connect(self, card: CardSpec) -> TapBackend | UserBackend:
        present = self._cards.get((card.domid, card.slot))
        since = present.since if present else self._clock.monotonic()
        self._cards[card.domid, card.slot] = _Connected(card, since)
        return TapBackend(f"vif{card.domid}.{card.slot}")

    async def disconnect(self, domid: int, slot: int) -> None:
        self._cards.pop((domid, slot), None)

    async def retain(self, domids: set[int]) -> None:
        self._cards = {key: connected for key, connected in self._cards.items() if key[0] in domids}

    async def counters(self, domid: int, slot: int) -> TrafficCounters:
        connected = self._cards.get((domid, slot))
        if connected is None:
            raise NetworkError(f"there is no card {slot} of domain {domid}")
        passed = self._clock.monotonic() - connected.since
        return TrafficCounters(int(passed * RECEIVED_RATE), int(passed * SENT_RATE))
