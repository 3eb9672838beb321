"""Who else is on the wire: the kernel's routes and its table of neighbours."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

ROUTES = Path("/proc/net/route")
DISCARD_PORT = 9
PATIENCE = 1.0
"""Seconds; a neighbour that is there answers ARP or a solicitation within milliseconds."""
LOOK = 0.05
PROVEN = 0x02 | 0x80
"""NUD_REACHABLE and NUD_PERMANENT of linux/neighbour.h: heard lately, or known for certain."""


def parse_routes(text: str) -> tuple[str, ...]:
    """The destinations of /proc/net/route (proc_net(5)), where numbers are hexadecimal in the machine's byte order."""
    routes: list[str] = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) >= 8:
            destination, mask = (IPv4Address(socket.ntohl(int(words[at], 16))) for at in (1, 7))
            routes.append(f"{destination}/{int(mask).bit_count()}")
    return tuple(dict.fromkeys(routes))


async def has_neighbour(address: str, interface: str) -> bool:
    """Make the kernel look for the neighbour, and see whether it hears one."""
    return await asyncio.to_thread(_look, address, interface)


def _look(address: str, interface: str) -> bool:
    # A large library that only hosts with a management interface of ours need.
    from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]  # pyroute2 ships no type information

    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with IPRoute() as netlink:
        try:
            index = socket.if_nametoindex(interface)
            _forget(netlink, address, family, index)
            _knock(address, family, index)
        except (OSError, NetlinkError):
            return False
        deadline = time.monotonic() + PATIENCE
        while not (found := _is_proven(netlink, address, family, index)) and time.monotonic() < deadline:
            time.sleep(LOOK)
        return found


def _forget(netlink: Any, address: str, family: int, index: int) -> None:
    """Drop what the kernel knows: it would take its time to ask again for a neighbour that it has known."""
    if any(entry.get("dst") == address for entry in netlink.get_neighbours(family=family, ifindex=index)):
        netlink.neigh("del", dst=address, ifindex=index, family=family)


def _knock(address: str, family: socket.AddressFamily, index: int) -> None:
    """Send a datagram that nobody has to take, by this interface: the kernel asks for the neighbour first."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        if family == socket.AF_INET6:
            probe.sendto(b"", (address, DISCARD_PORT, 0, index))
        else:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, socket.if_indextoname(index).encode() + b"\0")
            probe.sendto(b"", (address, DISCARD_PORT))


def _is_proven(netlink: Any, address: str, family: int, index: int) -> bool:
    entries = netlink.get_neighbours(family=family, ifindex=index)
    return any(entry.get("dst") == address and entry["state"] & PROVEN for entry in entries)
