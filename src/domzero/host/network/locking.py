"""What a card may send and receive, as an nftables ruleset of the bridge family (nft(8), libnftables-json(5)).

One table holds a chain for each restricted card. Two look-ups by interface name lead to them, so that a frame's way
does not grow with the number of cards. The bridge family is used, and not the ingress hook of the tap, because packets
that come back from a shaping device pass by that hook.

A locked card may send ARP and IPv4 from its allowed addresses; IPv6 from its allowed addresses and, for neighbour
discovery and multicast listening alone, from the link-local address of its MAC; requests for an address by DHCP; and
nothing else: no VLAN tags, no router advertisements, no neighbour advertisement of somebody else's address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from domzero.host.network.plan import CardRules, LockingMode
from domzero.host.network.protocol import NetworkError

TABLE = "domzero"
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
PREROUTING = -300
"""Before everything else in the bridge family, connection tracking included (NF_BR_PRI_NAT_DST_BRIDGED)."""

Json = dict[str, Any]
Expression = list[Json]

DROP: Json = {"drop": None}
ACCEPT: Json = {"accept": None}
UNSPECIFIED = "::"


def is_open(rules: CardRules) -> bool:
    """Whether a card needs no rule at all."""
    return rules.locking is LockingMode.UNLOCKED


def lock(card: str, mac: str, rules: CardRules) -> list[Json]:
    """The commands that put a card under its rules in one transaction, whatever rules it was under."""
    if is_open(rules):
        raise ValueError("an unlocked card has no rules")
    allowed4, allowed6 = _addresses(rules)
    if not MAC.fullmatch(mac):
        raise NetworkError(f"{mac!r} is no MAC address")
    passes = rules.locking is LockingMode.LOCKED and bool(allowed4 or allowed6)
    sending = [[DROP]] if not passes else [*_sender(mac), *_ipv4(mac, allowed4), *_ipv6(mac, allowed6), [DROP]]
    return [
        *_base(),
        _add("chain", name=_chain(card)),
        {"flush": {"chain": _named(_chain(card))}},
        *(_rule(_chain(card), expression) for expression in sending),
        _add("element", name="cards", elem=[[card, {"jump": {"target": _chain(card)}}]]),
        _add("element", name="silent", elem=[card]),
        *([] if not passes else [_delete("element", name="silent", elem=[card])]),
    ]


def unlock(card: str) -> list[Json]:
    """The commands that take a card's rules away; it must have some."""
    return [
        _add("element", name="silent", elem=[card]),
        _delete("element", name="silent", elem=[card]),
        _delete("element", name="cards", elem=[card]),
        _delete("chain", name=_chain(card)),
    ]


def locked_cards(listing: Json) -> frozenset[str]:
    """Whose chains there are, from what `nft -j list chains bridge` says."""
    prefix = _chain("")
    chains = (entry["chain"] for entry in listing.get("nftables", ()) if "chain" in entry)
    return frozenset(
        chain["name"].removeprefix(prefix)
        for chain in chains
        if chain.get("table") == TABLE and chain["name"].startswith(prefix)
    )


def link_local(mac: str) -> str:
    """The IPv6 link-local address that is made of a MAC (RFC 4291, appendix A)."""
    first, *rest = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]))
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + identifier))


def _base() -> list[Json]:
    return [
        {"add": {"table": {"family": "bridge", "name": TABLE}}},
        _add("map", name="cards", type="ifname", map="verdict"),
        _add("set", name="silent", type="ifname"),
        _add("chain", name="sent", type="filter", hook="prerouting", prio=PREROUTING, policy="accept"),
        _add("chain", name="received", type="filter", hook="postrouting", prio=PREROUTING, policy="accept"),
        {"flush": {"chain": _named("sent")}},
        {"flush": {"chain": _named("received")}},
        _rule("sent", [{"vmap": {"key": _meta("iifname"), "data": "@cards"}}]),
        _rule("received", [_match(_meta("oifname"), "@silent"), DROP]),
    ]


def _sender(mac: str) -> Iterable[Expression]:
    yield [_match(_field("ether", "saddr"), mac, "!="), DROP]


def _ipv4(mac: str, allowed: Sequence[str]) -> Iterable[Expression]:
    if not allowed:
        return
    # The lengths are fixed first, lest the addresses be somewhere else than where they are looked for.
    arp = [
        _match(_field("ether", "type"), "arp"),
        _match(_field("arp", "htype"), 1),
        _match(_field("arp", "ptype"), "ip"),
        _match(_field("arp", "hlen"), 6),
        _match(_field("arp", "plen"), 4),
        _match(_field("arp", "saddr ether"), mac),
    ]
    yield [*arp, _match(_field("arp", "saddr ip"), _any(allowed)), ACCEPT]
    # A probe whether an address is free (RFC 5227) has no sender's address.
    yield [
        *arp,
        _match(_field("arp", "saddr ip"), "0.0.0.0"),
        _match(_field("arp", "daddr ip"), _any(allowed)),
        ACCEPT,
    ]
    ip = _match(_field("ether", "type"), "ip")
    yield [ip, _match(_field("ip", "saddr"), _any(allowed)), ACCEPT]
    yield [
        ip,
        _match(_field("ip", "saddr"), "0.0.0.0"),
        _match(_field("ip", "daddr"), "255.255.255.255"),
        _match(_field("ip", "protocol"), "udp"),
        _match(_field("udp", "sport"), 68),
        _match(_field("udp", "dport"), 67),
        ACCEPT,
    ]


def _ipv6(mac: str, allowed: Sequence[str]) -> Iterable[Expression]:
    if not allowed:
        return
    own = (*allowed, link_local(mac))
    ip6 = _match(_field("ether", "type"), "ip6")
    source = _field("ip6", "saddr")
    icmp = [ip6, _match(_meta("l4proto"), "ipv6-icmp")]
    kind = _field("icmpv6", "type")
    target = _match({"payload": {"base": "th", "offset": 64, "len": 128}}, _any([_number(one) for one in own]))
    from_own = _match(source, _any(own))
    yield [*icmp, _match(kind, "nd-neighbor-advert"), from_own, target, ACCEPT]
    yield [*icmp, _match(kind, _any(["nd-neighbor-advert", "nd-router-advert", "nd-redirect"])), DROP]
    yield [*icmp, _match(kind, _any(["nd-neighbor-solicit", "nd-router-solicit"])), from_own, ACCEPT]
    # Whether an address is taken already is asked without one (RFC 4862, 5.4).
    yield [*icmp, _match(kind, "nd-neighbor-solicit"), _match(source, UNSPECIFIED), target, ACCEPT]
    reports = _any(["mld-listener-report", "mld-listener-done", "mld2-listener-report"])
    yield [*icmp, _match(kind, reports), _match(source, _any([*own, UNSPECIFIED])), ACCEPT]
    # Part of a packet might hide of which kind it is: what is split and claims to be ICMP is not let through.
    fragment: Json = {"exthdr": {"name": "frag", "field": "nexthdr"}}
    yield [ip6, _match(fragment, "ipv6-icmp"), DROP]
    yield [ip6, _match(source, _any(allowed)), ACCEPT]


def _addresses(rules: CardRules) -> tuple[list[str], list[str]]:
    try:
        return (
            [str(IPv4Address(address)) for address in dict.fromkeys(rules.ipv4_allowed)],
            [str(IPv6Address(address)) for address in dict.fromkeys(rules.ipv6_allowed)],
        )
    except AddressValueError as error:
        raise NetworkError(f"an allowed address is none: {error}") from error


def _number(address: str) -> str:
    return f"{int(IPv6Address(address)):#x}"


def _chain(card: str) -> str:
    return f"card-{card}"


def _named(name: str) -> Json:
    return {"family": "bridge", "table": TABLE, "name": name}


def _add(what: str, **settings: object) -> Json:
    return {"add": {what: {"family": "bridge", "table": TABLE, **settings}}}


def _delete(what: str, **settings: object) -> Json:
    return {"delete": {what: {"family": "bridge", "table": TABLE, **settings}}}


def _rule(chain: str, expression: Expression) -> Json:
    return _add("rule", chain=chain, expr=expression)


def _meta(key: str) -> Json:
    return {"meta": {"key": key}}


def _field(protocol: str, name: str) -> Json:
    return {"payload": {"protocol": protocol, "field": name}}


def _any(values: Sequence[str]) -> Json:
    return {"set": list(dict.fromkeys(values))}


def _match(left: Json, right: object, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}
