"""The contract between the toolstack and the network backend of a host.

A *bridge* joins the cards of machines (and, where an operator said so, one of the host's own interfaces). What bridges
there are, and what else the host's network is to be, stands in a `NetworkPlan`; bridges without an uplink are made when
the first card needs one and removed with the last. Every method may be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network.plan import CardRules, NetworkPlan


class NetworkError(Exception):
    """The host's network could not do it; the text says why."""


@dataclass(frozen=True, slots=True)
class InterfaceInfo:
    """One of the host's own network interfaces, as it is now."""

    name: str
    mac: str
    mtu: int
    carrier: bool
    speed: int
    """Mbit/s, 0 when unknown."""
    duplex: bool
    vendor_id: str
    vendor_name: str
    device_id: str
    device_name: str
    pci_bus_path: str
    addresses: tuple[str, ...]
    """With prefix length, IPv4 before IPv6."""
    gateway: str
    dns: tuple[str, ...]
    received_bytes: int = 0
    sent_bytes: int = 0
    """Since the interface came up, as the host sees them."""
    leased: bool = False
    """Whether the addresses are a DHCP server's, as far as the backend knows."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A bond or bridge that domzero made, as it is now. Addresses have a prefix length."""

    name: str
    mac: str
    mtu: int
    carrier: bool
    speed: int
    addresses: tuple[str, ...]
    gateway: str
    dns: tuple[str, ...]
    active_member: str = ""
    """The member of an active-backup bond that carries the traffic now."""
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TrafficCounters:
    """Bytes since the interface came up, seen from the guest."""

    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class CardSpec:
    """What a machine's card is to be connected to."""

    domid: int
    slot: int
    mac: str
    mtu: int
    bridge: str
    """Empty: not connected to anything (`UserBackend` gives it a way out where the backend is user-mode)."""
    rules: CardRules = field(default_factory=CardRules)


class NetworkBackend(Protocol):
    """How cards get connected on this host."""

    async def open(self) -> None:
        """Look at what there is; remove what a dead daemon left and no living domain uses."""
        ...

    async def close(self) -> None:
        """Let go without taking anything down."""
        ...

    def mode(self) -> str:
        """`"bridge"`, `"openvswitch"`, `"user"` or `"sim"`: goes into the host's record (`network-backend`)."""
        ...

    async def apply(self, plan: NetworkPlan) -> None:
        """Make the host's network what the plan says; cards that are connected stay connected.

        Only interfaces named in the plan are touched, and what bears domzero's mark. Raises `NetworkError` when a part
        of it cannot be done; what was there before has then been put back as far as possible. A DHCP client is
        started, not waited for.
        """
        ...

    async def devices(self) -> list[DeviceState]:
        """The bonds and bridges of the plan that exist, with addresses as they are now (DHCP's too)."""
        ...

    async def interfaces(self) -> list[InterfaceInfo]:
        """The host's physical (or otherwise useful) interfaces; loopback, taps and our own bridges left out."""
        ...

    async def connect(self, card: CardSpec) -> TapBackend | UserBackend:
        """Make what the card plugs into, bridge included. Raises `NetworkError` and leaves nothing behind."""
        ...

    async def configure(self, card: CardSpec) -> None:
        """Give a connected card other rules or another MTU, at once. Raises `NetworkError` when it is not there."""
        ...

    async def disconnect(self, domid: int, slot: int) -> None:
        """Remove the card's end, and its bridge when that was the last one. Nothing there is no error."""
        ...

    async def retain(self, domids: set[int]) -> None:
        """Remove every card's end whose domain is not among these."""
        ...

    async def counters(self, domid: int, slot: int) -> TrafficCounters:
        """Traffic of one card, in the guest's direction: received means received by the guest."""
        ...
