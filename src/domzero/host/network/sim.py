"""A network that only pretends, for the simulated hypervisor.

It knows which interfaces there are and follows every plan that names no others. Interfaces whose packets a bridge of
the plan carries lend it their addresses, as on a real host; DHCP answers at once, and gives the host's own address
where the interface is that has it. Each bridge of the plan is shown by `devices`, lazily made ones too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface

from domzero.host.clock import Clock
from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network.plan import AddressMode, BridgeSpec, Ipv6Mode, NetworkPlan
from domzero.host.network.protocol import CardSpec, DeviceState, InterfaceInfo, NetworkError, TrafficCounters

RECEIVED_RATE = 2000
SENT_RATE = 500
"""Bytes per second of each connected card, and of each of the host's interfaces."""


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


DHCP_SUBNET = "198.51.100"
"""What the simulated DHCP server hands out: addresses reserved for documentation (RFC 5737)."""


def interfaces_at(address: str) -> tuple[InterfaceInfo, ...]:
    """Two cards, of which the first has the address by which the host is reached, as if a DHCP server had given it.

    So that address is the interface's wherever the daemon listens at its next start. An IPv6 address is its only one.
    """
    first, *others = INTERFACES
    if ip_address(address).version == 6:
        at = f"{address}/{128 if ip_address(address).is_loopback else 64}"
        return replace(first, addresses=(at,), gateway="", dns=(), leased=True), *others
    at = f"{address}/{8 if ip_address(address).is_loopback else 24}"
    last = ip_interface(at).network.broadcast_address - 1
    gateway = last if last != ip_address(address) else last - 1
    return replace(first, addresses=(at,), gateway=str(gateway), leased=True), *others


@dataclass(frozen=True, slots=True)
class _Connected:
    card: CardSpec
    since: float


class SimNetwork:
    """Implements `NetworkBackend`. Each card's traffic follows the clock.

    For tests: `plans` lists every plan that was carried out, oldest first, and `faults` what is to fail: the name of a
    method of the protocol (`apply`, `connect`, `configure`, `devices`, `interfaces`) to the text of its `NetworkError`.
    """

    def __init__(self, clock: Clock, interfaces: tuple[InterfaceInfo, ...] = INTERFACES) -> None:
        self.plans: list[NetworkPlan] = []
        self.faults: dict[str, str] = {}
        self._clock = clock
        self._interfaces = interfaces
        self._cards: dict[tuple[int, int], _Connected] = {}
        self._plan = NetworkPlan()
        self._began = clock.monotonic()

    async def open(self) -> None:
        """Nothing can be left of an earlier daemon."""

    async def close(self) -> None:
        """The cards stay, as long as the object does."""

    def mode(self) -> str:
        return "sim"

    def bridges(self) -> frozenset[str]:
        """The bridges that cards are on."""
        return frozenset(connected.card.bridge for connected in self._cards.values() if connected.card.bridge)

    def card(self, domid: int, slot: int) -> CardSpec:
        """What a card is connected to now. Raises `NetworkError` when it is not there."""
        return self._connected(domid, slot).card

    async def apply(self, plan: NetworkPlan) -> None:
        """Besides the contract: raises `NetworkError` for a plan with interfaces that are not there."""
        self._enter("apply")
        missing = set(_devices_of(plan)) - {interface.name for interface in self._interfaces}
        if missing:
            raise NetworkError(f"there is no interface {min(missing)}")
        self._plan = plan
        self.plans.append(plan)

    async def devices(self) -> list[DeviceState]:
        self._enter("devices")
        present = {interface.name: interface for interface in self._interfaces}
        bonds = [
            DeviceState(
                name=bond.name,
                mac=bond.mac or present[bond.members[0]].mac,
                mtu=1500,
                carrier=any(present[member].carrier for member in bond.members),
                speed=sum(present[member].speed for member in bond.members if present[member].carrier),
                addresses=(),
                gateway="",
                dns=(),
                active_member=next((member for member in bond.members if present[member].carrier), ""),
            )
            for bond in self._plan.bonds
        ]
        return [*bonds, *(self._bridge_state(number, bridge) for number, bridge in enumerate(self._plan.bridges))]

    def _bridge_state(self, number: int, bridge: BridgeSpec) -> DeviceState:
        lender = self._lender(bridge)
        gateway = _gateway(bridge, lender)
        given_dns = lender.dns if lender is not None else (f"{DHCP_SUBNET}.53",)
        return DeviceState(
            name=bridge.name,
            mac=f"02:00:5e:00:54:{number & 0xFF:02x}",
            mtu=bridge.mtu,
            carrier=True,
            speed=0,
            addresses=_addresses(number, bridge, lender),
            gateway=gateway,
            dns=bridge.addresses.dns or (given_dns if gateway else ()),
        )

    def _lender(self, bridge: BridgeSpec) -> InterfaceInfo | None:
        """The interface below a bridge that has its address by DHCP."""
        below = set(_leads_out(self._plan, bridge))
        return next((interface for interface in self._interfaces if interface.leased and interface.name in below), None)

    async def interfaces(self) -> list[InterfaceInfo]:
        self._enter("interfaces")
        passed = int(self._clock.monotonic() - self._began)
        used = {device: bridge.name for bridge in self._plan.bridges for device in _leads_out(self._plan, bridge)}
        states = {state.name: state for state in await self.devices()} if used else {}
        counted = [
            replace(interface, received_bytes=passed * RECEIVED_RATE, sent_bytes=passed * SENT_RATE)
            for interface in self._interfaces
        ]
        return [_lending(interface, states.get(used.get(interface.name, ""))) for interface in counted]

    async def connect(self, card: CardSpec) -> TapBackend | UserBackend:
        self._enter("connect")
        present = self._cards.get((card.domid, card.slot))
        since = present.since if present else self._clock.monotonic()
        self._cards[card.domid, card.slot] = _Connected(card, since)
        return TapBackend(f"vif{card.domid}.{card.slot}")

    async def configure(self, card: CardSpec) -> None:
        self._enter("configure")
        present = self._connected(card.domid, card.slot)
        self._cards[card.domid, card.slot] = _Connected(card, present.since)

    async def disconnect(self, domid: int, slot: int) -> None:
        self._cards.pop((domid, slot), None)

    async def retain(self, domids: set[int]) -> None:
        self._cards = {key: connected for key, connected in self._cards.items() if key[0] in domids}

    async def counters(self, domid: int, slot: int) -> TrafficCounters:
        passed = self._clock.monotonic() - self._connected(domid, slot).since
        return TrafficCounters(int(passed * RECEIVED_RATE), int(passed * SENT_RATE))

    def _connected(self, domid: int, slot: int) -> _Connected:
        connected = self._cards.get((domid, slot))
        if connected is None:
            raise NetworkError(f"there is no card {slot} of domain {domid}")
        return connected

    def _enter(self, verb: str) -> None:
        if verb in self.faults:
            raise NetworkError(self.faults[verb])


def _lending(interface: InterfaceInfo, bridge: DeviceState | None) -> InterfaceInfo:
    """An interface with the addresses of the bridge that it is on, if it is on one."""
    if bridge is None:
        return interface
    return replace(interface, addresses=bridge.addresses, gateway=bridge.gateway, dns=bridge.dns)


def _devices_of(plan: NetworkPlan) -> Iterator[str]:
    """The interfaces that have to be there for the plan."""
    bonds = {bond.name for bond in plan.bonds}
    yield from (interface.device for interface in plan.interfaces)
    yield from (member for bond in plan.bonds for member in bond.members)
    yield from (bridge.uplink for bridge in plan.bridges if bridge.uplink and bridge.uplink not in bonds)


def _leads_out(plan: NetworkPlan, bridge: BridgeSpec) -> Iterator[str]:
    """The interfaces whose untagged packets the bridge carries."""
    if bridge.tag < 0 and bridge.uplink:
        members = {bond.name: bond.members for bond in plan.bonds}
        yield from members.get(bridge.uplink, (bridge.uplink,))


def _addresses(number: int, bridge: BridgeSpec, lender: InterfaceInfo | None) -> tuple[str, ...]:
    spec = bridge.addresses
    given = [ip_interface(text) for text in lender.addresses] if lender is not None else []
    own: list[str] = [bridge.dhcp_server.address] if bridge.dhcp_server else []
    if spec.mode is AddressMode.DHCP:
        leases = [str(address) for address in given if address.version == 4]
        own.extend(leases or [f"{DHCP_SUBNET}.{100 + number % 100}/24"])
    elif spec.mode is AddressMode.STATIC:
        own.append(spec.address)
    if spec.ipv6_mode in (Ipv6Mode.DHCP, Ipv6Mode.AUTOCONF):
        leases = [str(address) for address in given if address.version == 6]
        own.extend(leases or [f"2001:db8::{100 + number % 100}/64"])
    elif spec.ipv6_mode is Ipv6Mode.STATIC:
        own.extend(spec.ipv6_addresses)
    return tuple(own)


def _gateway(bridge: BridgeSpec, lender: InterfaceInfo | None) -> str:
    if bridge.addresses.mode is not AddressMode.DHCP:
        return bridge.addresses.gateway
    return lender.gateway if lender is not None and lender.gateway else f"{DHCP_SUBNET}.1"
