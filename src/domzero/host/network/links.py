"""The kernel's network interfaces, through rtnetlink. Everything here blocks: it belongs in `worker.NetworkThread`."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute  # type: ignore[import-untyped]  # the library has no types
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]  # the library has no types

from domzero.host.network.protocol import NetworkError

MARK = 0x646F6D7A
"""The interface group ("domz") of everything we make. A bridge is born with it and a tap is not persistent without
it, so that nothing of ours can be mistaken for the machine's own, and the other way round."""

UP_FLAG, LOOPBACK_FLAG, PROMISCUOUS_FLAG = 0x1, 0x8, 0x100
ETHERNET = 1
MAIN_TABLE = 254
NO_SUCH_DEVICE = 19
SWITCHED = "openvswitch"
"""The kind of what a port of Open vSwitch's kernel datapath hangs on."""
DETAIL_PREFIXES: Mapping[str, str] = {"bond": "IFLA_BOND_", "vlan": "IFLA_VLAN_", "bridge": "IFLA_BR_"}


class KernelError(NetworkError):
    """The kernel refused a request; `code` is its errno."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. `kind` is the kernel's word (bridge, tun, veth …), empty for a real device; `master` is an index,
    0 for none, nor for a port of Open vSwitch, which alone decides about its ports. Counters are in the host's
    direction."""

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
    up: bool = True
    """Whether it was switched on, with a carrier or without."""
    promiscuous: bool = False
    """Whether somebody asked for it; a bridge's own asking does not show."""
    parent: int = 0
    """The index of what a VLAN sub-interface stands on."""
    details: Mapping[str, int] = field(default_factory=dict)
    """Of a bond (mode, miimon, active_slave …), VLAN (id) or bridge (ageing_time …), under the kernel's names."""

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
        with asking("interfaces cannot be listed"):
            return [_link(message) for message in self._route.get_links()]

    def find(self, name: str) -> Link | None:
        try:
            with asking(name):
                return _link(self._route.link("get", ifname=name)[0])
        except KernelError as error:
            if error.code == NO_SUCH_DEVICE:
                return None
            raise

    def need(self, name: str) -> Link:
        """As `find`; raises `NetworkError` when there is none."""
        link = self.find(name)
        if link is None:
            raise NetworkError(f"there is no interface {name}")
        return link

    def at(self, index: int) -> Link | None:
        """By index; None when it is gone."""
        try:
            with asking(f"interface {index}"):
                return _link(self._route.link("get", index=index)[0])
        except KernelError as error:
            if error.code == NO_SUCH_DEVICE:
                return None
            raise

    def ports(self, master: int) -> list[Link]:
        """What is on a bridge or in a bond; the kernel does not list the rest."""
        return [_link(message) for message in self.ask("ports cannot be listed", "link", "dump", master=master)]

    def add(self, name: str, kind: str, **settings: Any) -> None:
        """Make an interface of ours."""
        self.ask(name, "link", "add", ifname=name, kind=kind, group=MARK, **settings)

    def add_bridge(self, name: str, mac: str) -> None:
        """Make a bridge of ours that forwards at once and does not speak the spanning tree protocol."""
        self.add(name, "bridge", address=mac, br_stp_state=0, br_forward_delay=0)

    def change(self, name: str, **settings: Any) -> None:
        """Set attributes under pyroute2's names (group, mtu, address, master, state …)."""
        self.set(self.need(name), **settings)

    def set(self, link: Link, **settings: Any) -> None:
        """As `change`, of an interface that has been looked up."""
        self.ask(link.name, "link", "set", index=link.index, **settings)

    def remove(self, link: Link) -> None:
        """Remove an interface of ours; one that is gone is no error."""
        if not link.ours:
            raise NetworkError(f"{link.name} is not ours to remove")
        try:
            self.ask(f"{link.name} cannot be removed", "link", "del", index=link.index)
        except KernelError as error:
            if error.code != NO_SUCH_DEVICE:
                raise

    def addresses(self) -> dict[int, list[str]]:
        """By interface index, with prefix length, IPv4 first."""
        found: dict[int, list[str]] = {}
        with asking("addresses cannot be listed"):
            messages = sorted(self._route.get_addr(), key=lambda message: int(message.get("family")))
        for message in messages:
            address = message.get("local") or message.get("address")
            found.setdefault(message.get("index"), []).append(f"{address}/{message.get('prefixlen')}")
        return found

    def gateways(self) -> dict[int, str]:
        """The default gateway of each interface index that has one; IPv4 before IPv6, then the lowest metric."""
        found: dict[int, tuple[bool, int, str]] = {}
        messages = self.ask("routes cannot be listed", "get_routes", table=MAIN_TABLE)
        for message in messages:
            gateway, index = message.get("gateway"), message.get("oif")
            if message.get("dst_len") == 0 and gateway and index:
                candidate = (message.get("family") != socket.AF_INET, int(message.get("priority") or 0), str(gateway))
                found[index] = min(found.get(index, candidate), candidate)
        return {index: gateway for index, (_, _, gateway) in found.items()}

    def ask(self, what: str, request: str, *arguments: Any, **settings: Any) -> list[Any]:
        """Any other request to rtnetlink by pyroute2's name (addr, route, tc, fdb, brport …): the answers.

        Raises `KernelError` with a text that begins with `what`.
        """
        with asking(what):
            return list(getattr(self._route, request)(*arguments, **settings) or ())


@contextmanager
def asking(what: str) -> Iterator[None]:
    """The kernel's refusals inside as `KernelError`."""
    try:
        yield
    except NetlinkError as error:
        raise KernelError(f"{what}: {error.args[1] if len(error.args) > 1 else error}", int(error.code)) from error


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
    flags = int(message.get("flags"))
    return Link(
        index=int(message.get("index")),
        name=str(message.get("ifname")),
        kind=str(message.get(("linkinfo", "kind")) or ""),
        mac=str(message.get("address") or "").lower(),
        mtu=int(message.get("mtu") or 0),
        group=int(message.get("group") or 0),
        master=0 if message.get(("linkinfo", "slave_kind")) == SWITCHED else int(message.get("master") or 0),
        carrier=bool(message.get("carrier")),
        is_loopback=bool(flags & LOOPBACK_FLAG),
        is_ethernet=message.get("ifi_type") == ETHERNET,
        peer_elsewhere=message.get("link_netnsid") is not None,
        received_bytes=int(counters.get("rx_bytes", 0)),
        sent_bytes=int(counters.get("tx_bytes", 0)),
        up=bool(flags & UP_FLAG),
        promiscuous=bool(flags & PROMISCUOUS_FLAG),
        parent=int(message.get("link") or 0),
        details=_details(message),
    )


def _details(message: Any) -> dict[str, int]:
    """The numbers in what the kernel says of a kind of interface; `IFLA_BOND_MIIMON` is `miimon`."""
    prefix = DETAIL_PREFIXES.get(str(message.get(("linkinfo", "kind"))))
    data = message.get(("linkinfo", "data"))
    if prefix is None or not data:
        return {}
    return {key.removeprefix(prefix).lower(): value for key, value in data["attrs"] if isinstance(value, int)}
