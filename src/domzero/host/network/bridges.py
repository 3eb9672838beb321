"""Our Linux bridges: made when the first card needs one, removed with the last. Work for the network thread."""

from __future__ import annotations

from domzero.host.network import ports
from domzero.host.network.bond import ACTIVE_BACKUP
from domzero.host.network.ethtool import Ethtool
from domzero.host.network.layout import BOND, BRIDGE, bridge_mac, check_name, is_needed
from domzero.host.network.links import Link, Links, without_ipv6
from domzero.host.network.plan import NetworkPlan
from domzero.host.network.protocol import CardSpec, DeviceState, NetworkError
from domzero.host.network.resolver import Resolver


def join(links: Links, tap: Link, card: CardSpec, plan: NetworkPlan, *, new: bool) -> None:
    """Put a card's tap on its bridge. Raises `NetworkError`, and leaves no empty bridge."""
    bridge = ensure(links, card.bridge, plan) if card.bridge else None
    try:
        ports.join(links, tap, bridge, card.mac.lower(), card.rules, new=new)
    except NetworkError:
        left(links, bridge.index if bridge is not None else 0, plan)
        raise
    if bridge is None or tap.master != bridge.index:
        left(links, tap.master, plan)


def ensure(links: Links, name: str, plan: NetworkPlan) -> Link:
    """The bridge of that name, made if it is not there. Raises `NetworkError`."""
    check_name(name)
    bridge = links.find(name)
    if bridge is None:
        links.add_bridge(name, bridge_mac(name))
        without_ipv6(name)
        mtu = next((spec.mtu for spec in plan.bridges if spec.name == name), None)
        links.change(name, state="up", **({} if mtu is None else {"mtu": mtu}))
        bridge = links.need(name)
    if bridge.kind != BRIDGE:
        raise NetworkError(f"the interface {name} is no bridge")
    if bridge.ours and not bridge.up:
        links.set(bridge, state="up")
    return bridge


def left(links: Links, index: int, plan: NetworkPlan) -> None:
    """A card has left the bridge of that index (0: none): remove it after the last, or let it be a hub no more."""
    bridge = links.at(index) if index else None
    if bridge is None or not bridge.ours or bridge.kind != BRIDGE:
        return
    if links.ports(index) or index in links.addresses() or bridge.name in _needed(plan):
        ports.settle(links, bridge)
    else:
        links.remove(bridge)


def tidy(links: Links, plan: NetworkPlan) -> None:
    """As `left`, for all of our bridges."""
    for link in links.all():
        if link.ours and link.kind == BRIDGE:
            left(links, link.index, plan)


def _needed(plan: NetworkPlan) -> set[str]:
    return {spec.name for spec in plan.bridges if is_needed(spec)}


def describe(links: Links, resolver: Resolver) -> list[DeviceState]:
    """The bridges and bonds of ours, as they are now."""
    present = {link.index: link for link in links.all()}
    addresses, gateways = links.addresses(), links.gateways()
    described = []
    for link in present.values():
        if not link.ours or link.kind not in (BRIDGE, BOND):
            continue
        medium = Ethtool(link.name).link()
        described.append(
            DeviceState(
                name=link.name,
                mac=link.mac,
                mtu=link.mtu,
                carrier=link.carrier,
                speed=medium.speed if medium is not None else 0,
                addresses=tuple(addresses.get(link.index, ())),
                gateway=gateways.get(link.index, ""),
                dns=resolver.servers(link.name),
                active_member=_active(link, present),
                received_bytes=link.received_bytes,
                sent_bytes=link.sent_bytes,
            )
        )
    return described


def _active(link: Link, present: dict[int, Link]) -> str:
    active = present.get(link.details.get("active_slave", 0))
    return active.name if active is not None and link.details.get("mode") == ACTIVE_BACKUP else ""
