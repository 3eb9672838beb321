"""Networks of Linux bridges and taps. Needs root's rights (CAP_NET_ADMIN) and touches nothing that it did not make.

Card <slot> of domain <domid> is the tap `vif<domid>.<slot>`, as on XenServer. Whatever has the mark of `links.MARK` is
ours. A bridge that somebody else made is used as it is and stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network.interfaces import InterfaceFacts, describe
from domzero.host.network.links import Link, Links, without_ipv6
from domzero.host.network.plan import CardRules, NetworkPlan
from domzero.host.network.protocol import CardSpec, DeviceState, InterfaceInfo, NetworkError, TrafficCounters
from domzero.host.network.tap import NAME_LIMIT, TapOwner, make_tap
from domzero.host.network.worker import NetworkThread

log = logging.getLogger(__name__)

TAP_NAME = re.compile(r"vif([0-9]+)\.([0-9]+)", re.ASCII)
BRIDGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", re.ASCII)
TAP_MAC = "fe:ff:ff:ff:ff:ff"
"""The host's end of a card; the highest there is, so that no bridge takes it for its own."""


class BridgeNetwork:
    """Implements `NetworkBackend`.

    `owner` may open the taps without rights. `namespace` is a file of a network namespace to work in. `facts` says
    where to read what netlink does not tell.
    """

    def __init__(
        self,
        *,
        owner: TapOwner | None = None,
        namespace: Path | None = None,
        facts: InterfaceFacts | None = None,
    ) -> None:
        self._owner = owner
        self._facts = facts or InterfaceFacts()
        self._thread = NetworkThread(namespace)

    async def open(self) -> None:
        """Besides the contract: a tap of ours that no process has open is what a dead daemon left."""
        await self._thread.open()
        await self._thread.run(lambda links: _remove_taps(links, lambda _, tap: tap.carrier))

    async def close(self) -> None:
        await self._thread.close()

    def mode(self) -> str:
        return "bridge"

    async def apply(self, plan: NetworkPlan) -> None:
        if plan.interfaces or plan.bonds or any(bridge.uplink or bridge.dhcp_server for bridge in plan.bridges):
            raise NetworkError("the bridge backend makes networks of this host alone")

    async def devices(self) -> list[DeviceState]:
        return await self._thread.run(_devices)

    async def configure(self, card: CardSpec) -> None:
        if card.rules != CardRules():
            raise NetworkError("the bridge backend cannot restrict a card")
        name = tap_name(card.domid, card.slot)
        await self._thread.run(lambda links: links.change(name, mtu=card.mtu))

    async def interfaces(self) -> list[InterfaceInfo]:
        return await self._thread.run(lambda links: describe(links, self._facts))

    async def connect(self, card: CardSpec) -> TapBackend | UserBackend:
        try:
            return await self._thread.run(lambda links: _connect(links, card, self._owner))
        except asyncio.CancelledError:
            # The thread has done it all the same, and whoever was cancelled will not undo what never returned.
            try:
                await self.disconnect(card.domid, card.slot)
            except NetworkError as error:
                log.warning("card %d of domain %d is left over: %s", card.slot, card.domid, error)
            raise

    async def disconnect(self, domid: int, slot: int) -> None:
        name = tap_name(domid, slot)
        await self._thread.run(lambda links: _disconnect(links, name))

    async def retain(self, domids: set[int]) -> None:
        kept = frozenset(domids)
        await self._thread.run(lambda links: _remove_taps(links, lambda domid, _: domid in kept))

    async def counters(self, domid: int, slot: int) -> TrafficCounters:
        name = tap_name(domid, slot)
        tap = await self._thread.run(lambda links: links.find(name))
        if tap is None or not tap.ours:
            raise NetworkError(f"there is no card {name}")
        return TrafficCounters(received_bytes=tap.sent_bytes, sent_bytes=tap.received_bytes)


def tap_name(domid: int, slot: int) -> str:
    """The tap of a card. Raises `NetworkError` when the kernel could not hold the name."""
    name = f"vif{domid}.{slot}"
    if domid < 0 or slot < 0 or len(name) > NAME_LIMIT:
        raise NetworkError(f"{name} is no name for an interface")
    return name


def bridge_mac(name: str) -> str:
    """A bridge's own address, always the same one for a name: locally administered, not multicast."""
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _connect(links: Links, card: CardSpec, owner: TapOwner | None) -> TapBackend:
    name = tap_name(card.domid, card.slot)
    present = links.find(name)
    if present is not None and not _is_tap(present):
        raise NetworkError(f"the interface {name} is not ours")
    try:
        if present is None:
            make_tap(links, name, owner)
        without_ipv6(name)
        master = _bridge(links, card.bridge) if card.bridge else 0
        links.change(name, address=TAP_MAC, mtu=card.mtu, master=master)
        links.change(name, state="up")
    except NetworkError:
        if present is None:
            _disconnect(links, name)
        _remove_empty_bridges(links)
        raise
    if present is not None and present.master != master:
        _remove_empty_bridges(links)
    return TapBackend(name)


def _bridge(links: Links, name: str) -> int:
    """The index of a bridge that is up, made if it is not there."""
    if len(name) > NAME_LIMIT or not BRIDGE_NAME.fullmatch(name):
        raise NetworkError(f"{name!r} is no name for a bridge")
    bridge = links.find(name)
    if bridge is None:
        links.add_bridge(name, bridge_mac(name))
        bridge = links.find(name)
    if bridge is None or bridge.kind != "bridge":
        raise NetworkError(f"the interface {name} is no bridge")
    if bridge.ours:
        without_ipv6(name)
        links.change(name, state="up")
    return bridge.index


def _disconnect(links: Links, name: str) -> None:
    tap = links.find(name)
    if tap is not None and _is_tap(tap):
        links.remove(tap)
        _remove_empty_bridges(links)


def _remove_taps(links: Links, keep: Callable[[int, Link], bool]) -> None:
    for link in links.all():
        match = TAP_NAME.fullmatch(link.name)
        if match and _is_tap(link) and not keep(int(match[1]), link):
            links.remove(link)
    _remove_empty_bridges(links)


def _remove_empty_bridges(links: Links) -> None:
    present = links.all()
    in_use = {link.master for link in present}
    for link in present:
        if link.ours and link.kind == "bridge" and link.index not in in_use:
            links.remove(link)


def _devices(links: Links) -> list[DeviceState]:
    addresses, gateways = links.addresses(), links.gateways()
    return [
        DeviceState(
            name=link.name,
            mac=link.mac,
            mtu=link.mtu,
            carrier=link.carrier,
            speed=0,
            addresses=tuple(addresses.get(link.index, ())),
            gateway=gateways.get(link.index, ""),
            dns=(),
            received_bytes=link.received_bytes,
            sent_bytes=link.sent_bytes,
        )
        for link in links.all()
        if link.ours and link.kind == "bridge"
    ]


def _is_tap(link: Link) -> bool:
    return link.ours and link.kind == "tun"
