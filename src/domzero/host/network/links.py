"""The kernel's network interfaces, through rtnetlink. Everything here blocks: it belongs in `worker.NetworkThread`."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute  # type: ignore[import-untyped]  # the library has no types
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]  # the library has no types

from domzero.host.network.protocol import NetworkError

MARK = 0x646F6D7A
"""The interface group ("domz") of everything we make. A bridge is born with it and a tap is not persistent without
it, so that nothing of ours can be mistaken for the machine's own, and the other way round."""

LOOPBACK_FLAG = 0x8
ETHERNET = 1
MAIN_TABLE = 254


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. `kind` is the kernel's word (bridge, tun, veth …), empty for a real device; `master` is an index,
    0 for none. Counters are in the host's direction."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    group: int
    master: int
    carrier: bool
    is_loopback: bool
    is_ethernet: bool
    peer_elsewhere: bool
    """The other end (of a veth pair, say) is in another network namespace."""
    received_bytes: int
    sent_bytes: int

    @property
    def ours(self) -> bool:
        return self.group == MARK


class Links:
    """A connection to the kernel, of the thread's network namespace. Failures raise `NetworkError`."""

    def __init__(self) -> None:
        try:
            self._route = IPRoute()
        except OSError as error:
            raise NetworkError(f"rtnetlink cannot be used: {error}") from error

    def close(self) -> None:
        self._route.close()

    def all(self) -> list[Link]:
        """Every interface, in the kernel's order."""
        try:
            return [_link(message) for message in self._route.get_links()]
        except NetlinkError as error:
            raise NetworkError(f"interfaces cannot be listed: {error}") from error

    def find(self, name: str) -> Link | None:
        try:
            return _link(self._route.link("get", ifname=name)[0])
        except NetlinkError as error:
            if error.code == 19:  # ENODEV
                return None
            raise NetworkError(f"{name}: {error}") from error

    def add_bridge(self, name: str, mac: str) -> None:
        """Make a bridge of ours that forwards at once and does not speak the spanning tree protocol."""
        self._do(
            name,
            "add",
            ifname=name,
            kind="bridge",
            group=MARK,
            address=mac,
            br_stp_state=0,
            br_forward_delay=0,
        )

    def change(self, name: str, **settings: Any) -> None:
        """Set attributes under pyroute2's names (group, mtu, address, master, state …)."""
        link = self.find(name)
        if link is None:
            raise NetworkError(f"there is no interface {name}")
        self._do(name, "set", index=link.index, **settings)

    def remove(self, link: Link) -> None:
        """Remove an interface of ours; one that is gone is no error."""
        if not link.ours:
            raise NetworkError(f"{link.name} is not ours to remove")
        try:
            self._route.link("del", index=link.index)
        except NetlinkError as error:
            if error.code != 19:  # ENODEV
                raise NetworkError(f"{link.name} cannot be removed: {error}") from error

    def addresses(self) -> dict[int, list[str]]:
        """By interface index, with prefix length, IPv4 first."""
        found: dict[int, list[str]] = {}
        try:
            messages = sorted(self._route.get_addr(), key=lambda message: int(message.get("family")))
        except NetlinkError as error:
            raise NetworkError(f"addresses cannot be listed: {error}") from error
        for message in messages:
            address = message.get("local") or message.get("address")
            found.setdefault(message.get("index"), []).append(f"{address}/{message.get('prefixlen')}")
        return found

    def gateways(self) -> dict[int, str]:
        """The default gateway of each interface index that has one; IPv4 before IPv6, then the lowest metric."""
        found: dict[int, tuple[bool, int, str]] = {}
        try:
            messages = list(self._route.get_routes(table=MAIN_TABLE))
        except NetlinkError as error:
            raise NetworkError(f"routes cannot be listed: {error}") from error
        for message in messages:
            gateway, index = message.get("gateway"), message.get("oif")
            if message.get("dst_len") == 0 and gateway and index:
                candidate = (message.get("family") != socket.AF_INET, int(message.get("priority") or 0), str(gateway))
                found[index] = min(found.get(index, candidate), candidate)
        return {index: gateway for index, (_, _, gateway) in found.items()}

    def _do(self, name: str, verb: str, **settings: Any) -> None:
        try:
            self._route.link(verb, **settings)
        except NetlinkError as error:
            raise NetworkError(f"{name}: {error}") from error


def without_ipv6(name: str) -> None:
    """Keep the host from giving itself an IPv6 address on an interface of guests, which would let them in."""
    try:
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    except FileNotFoundError:
        return  # The kernel has no IPv6, so there is nothing to turn off.
    except OSError as error:
        raise NetworkError(f"IPv6 cannot be turned off on {name}: {error.strerror}") from error


def _link(message: Any) -> Link:
    counters = message.get("stats64") or {}
    return Link(
        index=int(message.get("index")),
        name=str(message.get("ifname")),
        kind=str(message.get(("linkinfo", "kind")) or ""),
        mac=str(message.get("address") or "").lower(),
        mtu=int(message.get("mtu") or 0),
        group=int(message.get("group") or 0),
        master=int(message.get("master") or 0),
        carrier=bool(message.get("carrier")),
        is_loopback=bool(message.get("flags") & LOOPBACK_FLAG),
        is_ethernet=message.get("ifi_type") == ETHERNET,
        peer_elsewhere=message.get("link_netnsid") is not None,
        received_bytes=int(counters.get("rx_bytes", 0)),
        sent_bytes=int(counters.get("tx_bytes", 0)),
    )
