"""What the `other_config` keys of networks, PIFs and VIFs mean. Pure; a value that means nothing counts as absent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from domzero.engine.errors import ApiError
from domzero.host.network.plan import DhcpServer, Route

DEFAULT_MTU = 1500
LEAST_MTU = 68
"""What every IPv4 link must carry (RFC 791)."""
LARGEST_MTU = 65535

SWITCHES = frozenset({"rx", "tx", "sg", "tso", "ufo", "gso", "gro", "lro", "autoneg"})
SPEED = re.compile(r"[1-9][0-9]{1,5}", re.ASCII)
ADVERTISE = re.compile(r"0x[0-9a-fA-F]{1,32}", re.ASCII)
ETHTOOL = "ethtool-"
DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*", re.ASCII)

BOND = "bond-"
BOND_MODES = ("balance-slb", "active-backup", "lacp")
BOND_DEFAULTS = {
    "miimon": "100",
    "downdelay": "200",
    "updelay": "31000",
    "use_carrier": "1",
    "rebalance-interval": "1800000",
}
LACP_DEFAULTS = {"hashing_algorithm": "tcpudp_ports", "lacp-time": "slow"}
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)
_CHOICES = {
    "hashing_algorithm": ("src_mac", "tcpudp_ports"),
    "lacp-time": ("slow", "fast"),
    "lacp-fallback-ab": ("true", "false"),
    "use_carrier": ("0", "1"),
}
_LACP_ONLY = frozenset({"hashing_algorithm", "lacp-time", "lacp-fallback-ab", "lacp-aggregation-key"})
_NUMBERS = frozenset({"miimon", "downdelay", "updelay", "rebalance-interval", "lacp-aggregation-key"})


def is_on(text: str) -> bool:
    """`true` and `on` say yes."""
    return text.strip().lower() in ("true", "on")


def mtu_of(config: Mapping[str, str]) -> int:
    """The key `mtu`; 0 where there is none that an interface could have."""
    text = config.get("mtu", "").strip()
    size = int(text) if _COUNT.fullmatch(text) else 0
    return size if LEAST_MTU <= size <= LARGEST_MTU else 0


def checked_mtu(size: int) -> int:
    """The MTU that a client asked for; nothing or less is the default. Raises INVALID_VALUE for what cannot be."""
    if size <= 0:
        return DEFAULT_MTU
    if not LEAST_MTU <= size <= LARGEST_MTU:
        raise ApiError("INVALID_VALUE", "MTU", str(size))
    return size


def ethtool_settings(config: Mapping[str, str]) -> dict[str, str]:
    """The `ethtool-…` keys without the prefix; switches say `on` or `off`."""
    found = {
        key.removeprefix(ETHTOOL): value.strip().lower() for key, value in config.items() if key.startswith(ETHTOOL)
    }
    settings: dict[str, str] = {}
    for key, value in sorted(found.items()):
        if key in SWITCHES and value in ("on", "off", "true", "false"):
            settings[key] = "on" if is_on(value) else "off"
        elif (
            (key == "speed" and SPEED.fullmatch(value))
            or (key == "duplex" and value in ("half", "full"))
            or (key == "advertise" and ADVERTISE.fullmatch(value))
        ):
            settings[key] = value
    return settings


def routes_of(config: Mapping[str, str]) -> tuple[Route, ...]:
    """`static-routes`: `address/prefix/gateway`, several with commas between; others are left out."""
    routes: list[Route] = []
    for entry in config.get("static-routes", "").split(","):
        parts = entry.strip().split("/")
        try:
            network = ip_network("/".join(parts[:2]), strict=False)
            gateway = ip_address(parts[2]) if len(parts) == 3 else None
        except ValueError:
            continue
        if gateway is not None and gateway.version == network.version:
            routes.append(Route(str(network), str(gateway)))
    return tuple(routes)


def domain_of(config: Mapping[str, str]) -> str:
    """The key `domain`, where it is a name that a resolver may be told."""
    domain = config.get("domain", "").strip()
    return domain if len(domain) <= 253 and DOMAIN.fullmatch(domain) else ""


def dhcp_server(config: Mapping[str, str]) -> DhcpServer | None:
    """The server that the keys `dhcp`, `ip_begin`, `ip_end` and `netmask` ask for.

    The host has the first address and machines get the others up to the last, as on XenServer's host internal
    management network; `masquerade` lets them out behind the host's address.
    """
    if not is_on(config.get("dhcp", "")):
        return None
    try:
        own, last = IPv4Address(config.get("ip_begin", "")), IPv4Address(config.get("ip_end", ""))
        network = IPv4Network(f"{own}/{config.get('netmask', '')}", strict=False)
    except ValueError:
        return None
    inside = own in network and last in network and own < last < network.broadcast_address
    if not inside or own == network.network_address:
        return None
    return DhcpServer(
        address=f"{own}/{network.prefixlen}",
        first=str(own + 1),
        last=str(last),
        domain=domain_of(config),
        masquerade=is_on(config.get("masquerade", "")),
    )


def bond_properties(config: Mapping[str, str], properties: Mapping[str, str]) -> dict[str, str]:
    """All properties of a bond: those set, before `bond-…` keys of its PIF, before the defaults."""
    keys = {key.removeprefix(BOND): value for key, value in config.items() if key.startswith(BOND)}
    known = {key: value for key, value in keys.items() if key in _NUMBERS | _CHOICES.keys() and _fits(key, value)}
    return {**BOND_DEFAULTS, **known, **properties}


def check_bond_property(mode: str, name: str, value: str) -> None:
    """Raises INVALID_VALUE for a property that bonds of this mode do not have, or that cannot have the value."""
    if name not in _NUMBERS | _CHOICES.keys() or (name in _LACP_ONLY and mode != "lacp") or not _fits(name, value):
        raise ApiError("INVALID_VALUE", name, value)


def properties_for(mode: str, properties: Mapping[str, str]) -> dict[str, str]:
    """The properties that a bond of this mode shows: LACP has some by default, which the other modes lack."""
    kept = {name: value for name, value in properties.items() if mode == "lacp" or name not in _LACP_ONLY}
    return {**(LACP_DEFAULTS if mode == "lacp" else {}), **kept}


def _fits(name: str, value: str) -> bool:
    return value in _CHOICES[name] if name in _CHOICES else _COUNT.fullmatch(value) is not None
