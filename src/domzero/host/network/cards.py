"""The host's end of machines' cards: taps of ours. Blocking work for the network thread; no bridge is known here.

Card <slot> of domain <domid> is the tap `vif<domid>.<slot>`, as on XenServer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from domzero.host.hypervisor.spec import TapBackend
from domzero.host.network import ethtool, shaping
from domzero.host.network.links import Link, Links, without_ipv6
from domzero.host.network.plan import CardRules
from domzero.host.network.protocol import CardSpec, NetworkError, TrafficCounters
from domzero.host.network.tap import NAME_LIMIT, TapOwner, make_tap

TAP_NAME = re.compile(r"vif([0-9]+)\.([0-9]+)", re.ASCII)
TAP_MAC = "fe:ff:ff:ff:ff:ff"
"""The host's end of a card; the highest there is, so that no bridge takes it for its own."""

LEAST_MTU, LARGEST_MTU = 68, 65521
"""What the kernel takes for a tap (drivers/net/tun.c)."""


def tap_name(domid: int, slot: int) -> str:
    """The tap of a card. Raises `NetworkError` when the kernel could not hold the name."""
    name = f"vif{domid}.{slot}"
    if domid < 0 or slot < 0 or len(name) > NAME_LIMIT:
        raise NetworkError(f"{name} is no name for an interface")
    return name


def is_tap(link: Link) -> bool:
    """Whether it is a card's end that we made."""
    return link.ours and link.kind == "tun" and TAP_NAME.fullmatch(link.name) is not None


def make(links: Links, card: CardSpec, owner: TapOwner | None) -> tuple[Link, bool]:
    """See that the tap is there, not yet on any network if it is new; and whether it was made now."""
    name = tap_name(card.domid, card.slot)
    if not LEAST_MTU <= card.mtu <= LARGEST_MTU:
        raise NetworkError(f"{name} cannot have an MTU of {card.mtu}")
    present = links.find(name)
    if present is None:
        return make_tap(links, name, owner), True
    if not is_tap(present):
        raise NetworkError(f"the interface {name} is not ours")
    return present, False


def need(links: Links, domid: int, slot: int) -> Link:
    """The tap of a card. Raises `NetworkError` when there is none."""
    name = tap_name(domid, slot)
    tap = links.find(name)
    if tap is None or not is_tap(tap):
        raise NetworkError(f"there is no card {name}")
    return tap


def dress(links: Links, tap: Link, mtu: int, rules: CardRules, *, new: bool = False) -> None:
    """Give a tap its MTU, its offloads and its limit, whatever it had before; a new one had nothing."""
    without_ipv6(tap.name)
    links.set(tap, address=TAP_MAC, mtu=mtu)
    if rules.settings:
        ethtool.assign(tap.name, ethtool.normalised(rules.settings))
    if rules.kilobytes_per_second or not new:
        shaping.limit(links, tap, rules.kilobytes_per_second)


def backend(tap: Link, rules: CardRules, *, offloads: bool = True) -> TapBackend:
    """What a machine plugs into: the offloads that the settings turn off are not its guest's to turn on."""
    settings = ethtool.normalised(rules.settings)
    return TapBackend(tap.name, offloads, frozenset(key for key, value in settings.items() if value == ethtool.OFF))


def remove(links: Links, tap: Link) -> None:
    """Remove a tap and what hangs on it."""
    links.remove(tap)
    shaping.forget(links, tap.name)


def remove_all_but(links: Links, keep: Callable[[int, Link], bool]) -> list[Link]:
    """Remove the taps that are not to be kept, asked by domain; those removed."""
    removed = []
    for link in links.all():
        match = TAP_NAME.fullmatch(link.name)
        if match and is_tap(link) and not keep(int(match[1]), link):
            remove(links, link)
            removed.append(link)
    shaping.forget_strays(links)
    return removed


def counters(links: Links, domid: int, slot: int) -> TrafficCounters:
    """What passed, in the machine's direction."""
    tap = need(links, domid, slot)
    return TrafficCounters(received_bytes=tap.sent_bytes, sent_bytes=tap.received_bytes)
