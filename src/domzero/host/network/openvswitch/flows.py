"""What a card may send through Open vSwitch, as OpenFlow flows (ovs-fields(7), ovs-actions(7)). Pure.

A bridge of ours fails closed and has one flow that does what a switch does (`NORMAL`). A restricted card's frames meet
its own flows first; what none of them lets pass is dropped. The rules are those of `locking`, said in OpenFlow: ARP and
IPv4 from the allowed addresses, IPv6 from these and neighbour discovery from the link-local address of the card's MAC,
requests for an address by DHCP, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from zlib import crc32

from domzero.host.network.locking import MAC, link_local
from domzero.host.network.plan import CardRules, LockingMode
from domzero.host.network.protocol import NetworkError

SWITCH_FLOW = "add priority=0,actions=NORMAL"
ALLOWED, WATCHED, REFUSED, FOREIGN, LIMITED = 300, 200, 100, 90, 80
"""Priorities: what a locked card may do, what it may not although it looks alike, and everything else of it; what bears
a locked card's MAC and is not from it; what a card without a lock sends under a limit."""

KILOBIT = 1000
LEAST_BURST = 1500 * 8 * 10 // KILOBIT
"""Kilobits: a few packets must fit, or nothing passes at all."""
PORT = re.compile(r"vif[0-9]+\.[0-9]+", re.ASCII)


def cookie(card: str) -> int:
    """The mark of a card's flows, by which they are removed."""
    return crc32(card.encode()) | 1 << 32


def meter(domid: int, slot: int) -> int:
    """The number of a card's meter; cards that are there at the same time have different ones."""
    return (domid % (1 << 20)) * 8 + slot + 1


def rate(rules: CardRules) -> tuple[int, int]:
    """Kilobits a second and of a burst that a limited card may send."""
    kilobits = max(1, rules.kilobytes_per_second * 1024 * 8 // KILOBIT)
    return kilobits, max(kilobits // 10, LEAST_BURST)


def is_plain(rules: CardRules) -> bool:
    """Whether a card needs no flow of its own."""
    return rules.locking is LockingMode.UNLOCKED and not rules.kilobytes_per_second


def is_silent(rules: CardRules) -> bool:
    """Whether nothing may pass, in either direction."""
    nothing = not rules.ipv4_allowed and not rules.ipv6_allowed
    return rules.locking is LockingMode.DISABLED or (rules.locking is LockingMode.LOCKED and nothing)


def release(card: str) -> str:
    """The command that takes a card's flows away."""
    return f"delete cookie={cookie(card):#x}/-1"


def restrict(card: str, port: int, mac: str, rules: CardRules, meter_number: int) -> list[str]:
    """The commands that put a card under its rules in one bundle, whatever it was under. Raises `NetworkError`.

    `port` is the card's number in the switch, which it need not have yet.
    """
    if not PORT.fullmatch(card) or not MAC.fullmatch(mac):
        raise NetworkError(f"{card} with MAC {mac!r} is no card")
    limit = f"meter:{meter_number}," if rules.kilobytes_per_second else ""
    commands = [release(card)]
    if is_plain(rules):
        return commands
    start = f"add cookie={cookie(card):#x},in_port={port}"
    if rules.locking is LockingMode.UNLOCKED:
        return [*commands, f"{start},priority={LIMITED},actions={limit}NORMAL"]
    commands.append(f"{start},priority={REFUSED},actions=drop")
    if not is_silent(rules):
        # The switch learns where a MAC is from every frame, and would send what is for this card to whoever forges it.
        commands.append(f"add cookie={cookie(card):#x},priority={FOREIGN},dl_src={mac},actions=drop")
        for priority, match, passes in _locked(mac, rules):
            action = f"{limit}NORMAL" if passes else "drop"
            commands.append(f"{start},priority={priority},vlan_tci=0,dl_src={mac},{match},actions={action}")
    return commands


def _locked(mac: str, rules: CardRules) -> Iterator[tuple[int, str, bool]]:
    """Priority, match, and whether it passes."""
    try:
        ipv4 = [str(IPv4Address(address)) for address in dict.fromkeys(rules.ipv4_allowed)]
        ipv6 = [str(IPv6Address(address)) for address in dict.fromkeys(rules.ipv6_allowed)]
    except AddressValueError as error:
        raise NetworkError(f"an allowed address is none: {error}") from error
    for address in ipv4:
        yield ALLOWED, f"arp,arp_sha={mac},arp_spa={address}", True
        # A probe whether an address is free (RFC 5227) has no sender's address.
        yield ALLOWED, f"arp,arp_sha={mac},arp_spa=0.0.0.0,arp_tpa={address}", True
        yield ALLOWED, f"ip,nw_src={address}", True
    if ipv4:
        yield ALLOWED, "udp,nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67", True
    if ipv6:
        yield from _ipv6(ipv6, link_local(mac))


def _ipv6(allowed: list[str], own_link: str) -> Iterator[tuple[int, str, bool]]:
    own = [*allowed, own_link]
    for kind in (134, 136, 137):  # router and neighbour advertisements, redirects
        yield WATCHED, f"icmp6,icmp_type={kind}", False
    # Part of a packet might hide of which kind it is.
    yield WATCHED, "icmp6,nw_frag=yes", False
    for target in own:
        yield ALLOWED, f"icmp6,icmp_type=135,ipv6_src=::,nd_target={target}", True
        for source in own:
            yield ALLOWED, f"icmp6,icmp_type=136,ipv6_src={source},nd_target={target}", True
    for source in own:
        for kind in (133, 135):  # solicitations
            yield ALLOWED, f"icmp6,icmp_type={kind},ipv6_src={source}", True
    for source in (*own, "::"):
        for kind in (131, 132, 143):  # multicast listeners' reports
            yield ALLOWED, f"icmp6,icmp_type={kind},ipv6_src={source}", True
    for source in allowed:
        yield REFUSED + 1, f"ipv6,ipv6_src={source}", True
