"""What a host's network is to look like, as plain values: the toolstack computes a plan, a backend makes it true.

A plan is whole: what is not in it is taken down, if domzero made it. Applying the same plan twice changes nothing, so
a crash at any moment is mended by applying it again, and a change is undone by applying the plan before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class AddressMode(Enum):
    """How an interface of the host gets its addresses; the names are XenServer's `ip_configuration_mode`."""

    NONE = "None"
    DHCP = "DHCP"
    STATIC = "Static"


class Ipv6Mode(Enum):
    """As `AddressMode`, for IPv6: also by router advertisements."""

    NONE = "None"
    DHCP = "DHCP"
    STATIC = "Static"
    AUTOCONF = "Autoconf"


@dataclass(frozen=True, slots=True)
class Route:
    """A route besides the default one: `destination` with prefix length, through `gateway`."""

    destination: str
    gateway: str


@dataclass(frozen=True, slots=True)
class AddressSpec:
    """The host's own addresses on a bridge. Addresses have a prefix length (`192.0.2.10/24`); checked by the caller."""

    mode: AddressMode = AddressMode.NONE
    address: str = ""
    gateway: str = ""
    """Empty: no default route by this bridge."""
    dns: tuple[str, ...] = ()
    domain: str = ""
    ipv6_mode: Ipv6Mode = Ipv6Mode.NONE
    ipv6_addresses: tuple[str, ...] = ()
    ipv6_gateway: str = ""
    routes: tuple[Route, ...] = ()
    accept_dns: bool = True
    """Whether a DHCP server may set the host's name servers (`peerdns`)."""
    accept_gateway: bool = True
    """Whether a DHCP server may set the default route (`defaultroute`)."""


@dataclass(frozen=True, slots=True)
class DhcpServer:
    """Addresses that the host gives to the machines of a network of its own, and how it lets them out."""

    address: str
    """The host's own address there, with prefix length; machines get the addresses of the same subnet."""
    first: str
    last: str
    domain: str = ""
    masquerade: bool = False
    """Whether machines reach the world behind the host's address."""


@dataclass(frozen=True, slots=True)
class InterfaceSpec:
    """An interface that domzero may configure; `settings` are `ethtool-…` keys without the prefix, and `mtu`."""

    device: str
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BondSpec:
    """Several interfaces that act as one. `mode` is `balance-slb`, `active-backup` or `lacp`.

    `properties` are XenServer's (miimon, downdelay, updelay, use_carrier, rebalance-interval, hashing_algorithm,
    lacp-time, lacp-aggregation-key …), those that the backend knows being obeyed.
    """

    name: str
    members: tuple[str, ...]
    mode: str
    mac: str = ""
    """Empty: that of the first member."""
    properties: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """One network on this host.

    Without an `uplink` it joins the machines of this host alone, and is made when the first card (or an address or
    DHCP server of its own) needs it. With one it is there as long as the plan says so.
    """

    name: str
    mtu: int = 1500
    uplink: str = ""
    """The interface or bond that leads out."""
    tag: int = -1
    """The VLAN of the uplink that this network is; -1 for its untagged packets."""
    addresses: AddressSpec = field(default_factory=AddressSpec)
    dhcp_server: DhcpServer | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """`ethtool-…` keys of the network's other_config without the prefix, for the bridge device."""


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """Everything at once."""

    interfaces: tuple[InterfaceSpec, ...] = ()
    bonds: tuple[BondSpec, ...] = ()
    bridges: tuple[BridgeSpec, ...] = ()


class LockingMode(Enum):
    """What a card may send and receive; the names are XenServer's `vif_locking_mode`, resolved against its network."""

    UNLOCKED = "unlocked"
    LOCKED = "locked"
    """Only from the card's own MAC and its allowed addresses; none allowed means nothing passes."""
    DISABLED = "disabled"
    """Nothing passes."""


@dataclass(frozen=True, slots=True)
class CardRules:
    """How a card's end on the host is set up; all of it can change while the machine runs."""

    locking: LockingMode = LockingMode.UNLOCKED
    ipv4_allowed: tuple[str, ...] = ()
    ipv6_allowed: tuple[str, ...] = ()
    kilobytes_per_second: int = 0
    """What the machine may send; 0 is no limit (XenServer's ratelimit: kilobytes, 1024 bytes)."""
    promiscuous: bool = False
    """Whether the machine sees every packet of its network."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """`ethtool-…` keys without the prefix: rx, tx, sg, tso, ufo, gso, gro, lro: `on` or `off`."""
