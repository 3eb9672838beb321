"""The host's own addresses and routes on an interface: as they are, and as they are to be.

Nothing here knows of bridges: it serves every backend, and the DHCP client's script. What touches the kernel is
blocking work for the network thread.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from domzero.host.network.links import MAIN_TABLE, KernelError, Links
from domzero.host.network.plan import AddressMode, AddressSpec, DhcpServer, Ipv6Mode
from domzero.host.network.protocol import NetworkError

DEFAULT = "default"
OUR_METRIC = 50
"""Of all routes made here: a default route that the machine had on another interface (metric 0) stays the first."""

KERNELS_OWN, BY_ADVERTISEMENT = 2, 9
"""Who made a route (rtnetlink(7)): one that comes with an address, or from a router's advertisement."""

PERMANENT = 0x80
GONE = (3, 99, 101)
"""ESRCH, EADDRNOTAVAIL, ENETUNREACH: what is to be removed went with something else."""

ALREADY_THERE = 17
FAMILIES = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True, order=True)
class RouteState:
    """One route of an interface. `gateway` is empty for what is reached directly."""

    destination: str
    gateway: str
    metric: int = OUR_METRIC


@dataclass(frozen=True, slots=True)
class Addressing:
    """The addresses (with prefix length) and routes of one family, sorted; those that come by themselves left out."""

    addresses: tuple[str, ...] = ()
    routes: tuple[RouteState, ...] = ()


@dataclass(frozen=True, slots=True)
class Ipv6Switches:
    """Of /proc/sys/net/ipv6/conf/<interface> (ip-sysctl): whether IPv6 is off, and who may advertise a route."""

    disabled: int
    accept_ra: int


NOTHING = Addressing()
IPV6_OFF, IPV6_STATIC, IPV6_AUTOMATIC = Ipv6Switches(1, 0), Ipv6Switches(0, 0), Ipv6Switches(0, 2)
"""The last also where the host forwards packets for its machines."""


def ipv4_wanted(spec: AddressSpec, server: DhcpServer | None = None) -> Addressing | None:
    """What a bridge is to have; None where a DHCP client sees to it. Raises `NetworkError` for what is no address."""
    own = () if server is None else (server.address,)
    if spec.mode is AddressMode.DHCP:
        return None
    if spec.mode is AddressMode.NONE:
        return checked(4, own, ())
    routes = [(DEFAULT, spec.gateway)] if spec.gateway else []
    routes += [(route.destination, route.gateway) for route in spec.routes if ":" not in route.destination]
    return checked(4, (spec.address, *own), routes)


def ipv6_wanted(spec: AddressSpec) -> Addressing | None:
    """As `ipv4_wanted`. Addresses by advertisement are the kernel's affair and count as none."""
    if spec.ipv6_mode is Ipv6Mode.DHCP:
        raise NetworkError("IPv6 addresses by DHCP cannot be had: the DHCP client (udhcpc) is for IPv4")
    if spec.ipv6_mode is not Ipv6Mode.STATIC:
        return NOTHING
    routes = [(DEFAULT, spec.ipv6_gateway)] if spec.ipv6_gateway else []
    routes += [(route.destination, route.gateway) for route in spec.routes if ":" in route.destination]
    return checked(6, spec.ipv6_addresses, routes)


def ipv6_switches(spec: AddressSpec) -> Ipv6Switches:
    """How the kernel is to treat IPv6 on a bridge with these addresses."""
    if spec.ipv6_mode is Ipv6Mode.NONE:
        return IPV6_OFF
    return IPV6_AUTOMATIC if spec.ipv6_mode is Ipv6Mode.AUTOCONF else IPV6_STATIC


def checked(version: int, addresses: Iterable[str], routes: Iterable[tuple[str, str]]) -> Addressing:
    """Addresses and (destination, gateway) in the form in which the kernel tells them. Raises `NetworkError`."""
    kind = IPv4Interface if version == 4 else IPv6Interface
    try:
        found = {str(kind(address)) for address in addresses}
        ways = {RouteState(_destination(version, destination), _gateway(version, via)) for destination, via in routes}
    except ValueError as error:
        raise NetworkError(f"an address cannot be used: {error}") from error
    return Addressing(tuple(sorted(found)), tuple(sorted(ways)))


def read_all(links: Links) -> dict[tuple[int, int], Addressing]:
    """By interface index and family; an interface without any is left out."""
    addresses: dict[tuple[int, int], set[str]] = {}
    routes: dict[tuple[int, int], set[RouteState]] = {}
    for message in links.ask("addresses cannot be listed", "get_addr"):
        family = int(message.get("family"))
        address = str(message.get("local") or message.get("address"))
        if family == socket.AF_INET or _was_given(message, address):
            addresses.setdefault((message.get("index"), family), set()).add(f"{address}/{message.get('prefixlen')}")
    for family in FAMILIES:
        for message in links.ask("routes cannot be listed", "get_routes", family=family, table=MAIN_TABLE):
            index = message.get("oif")
            if index and message.get("proto") not in (KERNELS_OWN, BY_ADVERTISEMENT) and message.get("type") == 1:
                routes.setdefault((index, family), set()).add(_route(message))
    return {
        key: Addressing(tuple(sorted(addresses.get(key, ()))), tuple(sorted(routes.get(key, ()))))
        for key in addresses.keys() | routes.keys()
    }


def assign(links: Links, name: str, family: int, wanted: Addressing) -> None:
    """Make an interface have just these, new addresses first. Raises `NetworkError`."""
    index = links.need(name).index
    present = read_all(links).get((index, family), NOTHING)
    for address in wanted.addresses:
        if address not in present.addresses:
            _address(links, name, "add", index, address)
    for address in present.addresses:
        if address not in wanted.addresses:
            _address(links, name, "del", index, address)
    present = read_all(links).get((index, family), NOTHING)
    for address in wanted.addresses:
        # With the first address of a subnet the kernel takes away the others of it, those just added too.
        if address not in present.addresses:
            _address(links, name, "add", index, address)
    for route in present.routes:
        if route not in wanted.routes:
            _way(links, name, "del", index, family, route)
    # Direct ones first: a gateway may be reached by one of them.
    for route in sorted(wanted.routes, key=lambda route: bool(route.gateway)):
        if route not in present.routes:
            _way(links, name, "add", index, family, route)


def read_ipv6(name: str) -> Ipv6Switches | None:
    """None where the kernel has no IPv6."""
    directory = _switches(name)
    try:
        return Ipv6Switches(int((directory / "disable_ipv6").read_text()), int((directory / "accept_ra").read_text()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NetworkError(f"the IPv6 settings of {name} cannot be read: {error.strerror}") from error


def assign_ipv6(name: str, wanted: Ipv6Switches) -> None:
    """Raises `NetworkError`; a kernel without IPv6 has it turned off."""
    directory = _switches(name)
    if not directory.exists():
        if wanted.disabled:
            return
        raise NetworkError(f"{name} cannot have IPv6 addresses: the kernel has no IPv6")
    try:
        # In this order no advertisement is heard that is not to be.
        (directory / "accept_ra").write_text(str(wanted.accept_ra))
        (directory / "disable_ipv6").write_text(str(wanted.disabled))
    except OSError as error:
        raise NetworkError(f"IPv6 cannot be set on {name}: {error.strerror}") from error


def _switches(name: str) -> Path:
    return Path("/proc/sys/net/ipv6/conf") / name


def _was_given(message: Any, address: str) -> bool:
    """Whether somebody set this IPv6 address, and neither the kernel nor a router."""
    return bool(int(message.get("flags")) & PERMANENT) and not ip_address(address).is_link_local


def _route(message: Any) -> RouteState:
    destination = message.get("dst")
    length = message.get("dst_len")
    return RouteState(
        DEFAULT if not length else f"{destination}/{length}",
        str(message.get("gateway") or ""),
        int(message.get("priority") or 0),
    )


def _destination(version: int, destination: str) -> str:
    if destination == DEFAULT:
        return DEFAULT
    network = ip_network(destination, strict=False)
    if network.version != version:
        raise ValueError(f"{destination} is not of IPv{version}")
    return str(network) if network.prefixlen else DEFAULT


def _gateway(version: int, gateway: str) -> str:
    found = ip_address(gateway)
    if found.version != version:
        raise ValueError(f"{gateway} is not of IPv{version}")
    return str(found)


def _address(links: Links, name: str, verb: str, index: int, address: str) -> None:
    interface = ip_interface(address)
    settings: dict[str, Any] = {"address": str(interface.ip), "prefixlen": interface.network.prefixlen}
    if verb == "add" and interface.version == 4 and interface.network.prefixlen < 31:
        settings["broadcast"] = str(interface.network.broadcast_address)
    if verb == "add" and interface.version == 6:
        settings["flags"] = 0x02  # IFA_F_NODAD: the address is usable at once, for routes by it as well
    try:
        links.ask(f"{name} cannot have the address {address}", "addr", verb, index=index, **settings)
    except KernelError as error:
        if error.code not in (GONE if verb == "del" else (ALREADY_THERE,)):
            raise


def _way(links: Links, name: str, verb: str, index: int, family: int, route: RouteState) -> None:
    settings: dict[str, Any] = {"family": family, "dst": route.destination, "oif": index, "priority": route.metric}
    if route.destination == DEFAULT:
        settings["dst"] = "0.0.0.0/0" if family == socket.AF_INET else "::/0"
    if route.gateway:
        settings["gateway"] = route.gateway
    elif family == socket.AF_INET:
        settings["scope"] = 253  # link: reached without a gateway
    try:
        links.ask(f"{name} cannot have the route to {route.destination}", "route", verb, **settings)
    except KernelError as error:
        if verb != "del" or error.code not in GONE:
            raise
