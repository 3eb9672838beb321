"""What the DHCP client runs when it gets or loses a lease: `python -m domzero.host.network.lease SETTINGS EVENT`.

The lease is in the environment, as udhcpc (busybox) gives it: ip, mask (prefix length) or subnet (netmask), router,
dns, domain, staticroutes. All of it comes from whoever answers on the network: what is no address is left out.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from domzero.host.network.addresses import DEFAULT, NOTHING, Addressing, RouteState, assign
from domzero.host.network.dhcp_client import LeaseSettings
from domzero.host.network.links import Links
from domzero.host.network.protocol import NetworkError
from domzero.host.network.resolver import Resolver

ROUTES = 64
"""More are not taken from a server."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a bridge is to have."""

    addressing: Addressing
    servers: tuple[str, ...]
    domain: str


def lease_of(environment: Mapping[str, str], settings: LeaseSettings) -> Lease:
    """What a DHCP server's answer means. Raises `NetworkError` when it holds no address to be used."""
    length = environment.get("mask", "") or environment.get("subnet", "") or "32"
    try:
        address = IPv4Interface(f"{environment.get('ip', '')}/{length}")
    except ValueError as error:
        raise NetworkError(f"the DHCP server's answer holds no address: {error}") from error
    if address.ip.is_loopback or address.ip.is_multicast or address.ip.is_unspecified:
        raise NetworkError(f"the DHCP server's answer holds an address that cannot be: {address.ip}")
    routes = [route for route in _routes(environment, address.network) if _wanted(route, settings)]
    servers = [server for server in environment.get("dns", "").split() if _ipv4(server)] if settings.accept_dns else []
    return Lease(Addressing((str(address),), tuple(sorted(set(routes)))), tuple(servers), environment.get("domain", ""))


def carry_out(event: str, environment: Mapping[str, str], settings: LeaseSettings) -> None:
    """React to the client's event; those that change nothing are passed over. Raises `NetworkError`."""
    resolver = Resolver(Path(settings.resolver) if settings.resolver else None, Path(settings.contributions))
    if event not in ("deconfig", "bound", "renew"):
        return
    lease = Lease(NOTHING, (), "") if event == "deconfig" else lease_of(environment, settings)
    links = Links()
    try:
        assign(links, settings.interface, socket.AF_INET, lease.addressing)
    finally:
        links.close()
    resolver.contribute(settings.interface, lease.servers, lease.domain)


def main(arguments: Sequence[str]) -> int:
    """The command: a code other than 0, and a line on standard error, when it could not be done."""
    path, event = arguments
    try:
        carry_out(event, os.environ, LeaseSettings(**json.loads(Path(path).read_text(encoding="utf-8"))))
    except NetworkError as error:
        sys.stderr.write(f"{event}: {error}\n")
        return 1
    return 0


def _routes(environment: Mapping[str, str], network: IPv4Network) -> list[RouteState]:
    """RFC 3442: where classless routes are given, the router option does not count."""
    words = environment.get("staticroutes", "").split()[: 2 * ROUTES]
    classless = [
        RouteState(_destination(destination), gateway if gateway != "0.0.0.0" else "")
        for destination, gateway in zip(words[::2], words[1::2], strict=False)
        if _network(destination) and _ipv4(gateway)
    ]
    if classless:
        return classless
    router = next((word for word in environment.get("router", "").split() if _ipv4(word)), "")
    if not router:
        return []
    # A router outside the subnet is reached directly first.
    direct = [] if IPv4Address(router) in network else [RouteState(f"{router}/32", "")]
    return [*direct, RouteState(DEFAULT, router)]


def _wanted(route: RouteState, settings: LeaseSettings) -> bool:
    return settings.accept_gateway or route.destination != DEFAULT


def _destination(text: str) -> str:
    network = IPv4Network(text, strict=False)
    return str(network) if network.prefixlen else DEFAULT


def _network(text: str) -> bool:
    try:
        IPv4Network(text, strict=False)
    except ValueError:
        return False
    return True


def _ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
