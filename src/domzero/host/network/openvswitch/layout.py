"""From a plan to what Open vSwitch's database is to hold, and from there to one transaction: pure.

A network with an uplink and no tag is a bridge with the uplink, or a bond, as its port. One with a tag is a *fake
bridge* (ovs-vsctl(8)): a port group of the uplink's bridge, whose ports carry that VLAN; where the plan has no untagged
network on the uplink, the bridge below is made all the same, under a name of our own. A network without an uplink is a
bridge by itself. What is ours has the mark `domzero` among its external ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from domzero.host.network.layout import bridge_mac, check_name, is_needed
from domzero.host.network.openvswitch.tool import Row
from domzero.host.network.plan import BondSpec, BridgeSpec, NetworkPlan
from domzero.host.network.protocol import NetworkError

MARK = "domzero"
CARD = "domzero-card"
"""The external id that says what a card's port was asked for."""

TABLES: Mapping[str, Sequence[str]] = {
    "Bridge": ("name", "ports", "external_ids", "other_config"),
    "Port": ("_uuid", "name", "interfaces", "tag", "fake_bridge", "external_ids", "bond_active_slave"),
    "Interface": ("_uuid", "name", "mtu_request", "mac", "ofport_request", "error"),
}
"""What `read_present` reads."""

FIRST_PORT, LAST_PORT = 0x4000, 0xFE00
"""Numbers of cards' ports; the switch itself gives out low ones (OpenFlow's OFPP_MAX is 0xff00)."""

LARGEST_TAG = 4094
BOND_MODES: Mapping[str, tuple[str, str]] = {
    "active-backup": ("active-backup", "off"),
    "balance-slb": ("balance-slb", "off"),
    "lacp": ("balance-tcp", "active"),
}
"""XenServer's mode → Open vSwitch's `bond_mode` and `lacp`."""

Command = list[str]


@dataclass(frozen=True, slots=True)
class Uplink:
    """A port that leads out: one interface, or the members of a bond. `settings` are columns of the port."""

    name: str
    members: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OvsBridge:
    """A bridge, or a fake one on another (`parent`)."""

    name: str
    parent: str = ""
    tag: int = -1
    uplink: Uplink | None = None
    mtu: int = 1500
    mac: str = ""


@dataclass(frozen=True, slots=True)
class CardPort:
    """A card that is on a bridge, fake or not, under a number of its own; `told` is what `ovs_cards` noted of it."""

    bridge: str
    number: int
    told: str


@dataclass(frozen=True, slots=True)
class Present:
    """What the database holds of ours, and the names that others have there."""

    bridges: Mapping[str, OvsBridge]
    cards: Mapping[str, CardPort]
    foreign: frozenset[str]
    active: Mapping[str, str] = field(default_factory=dict)
    """Bond → the MAC of the member that carries the traffic."""
    numbers: frozenset[int] = frozenset()
    """The ports' numbers that are asked for."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Interface → why the switch cannot use it."""

    def occupied(self) -> set[str]:
        """The bridges that cards are on."""
        return {card.bridge for card in self.cards.values()}

    def free_number(self) -> int:
        """For one more card. Raises `NetworkError`."""
        for number in range(FIRST_PORT, LAST_PORT):
            if number not in self.numbers:
                return number
        raise NetworkError("Open vSwitch has no more ports")


def switch_of(bridge: str, bridges: Mapping[str, OvsBridge]) -> str:
    """The real bridge that a network is on, to which its flows belong."""
    there = bridges.get(bridge)
    return there.parent if there is not None and there.parent else bridge


def wanted_bridges(plan: NetworkPlan, present: Present, macs: Mapping[str, str]) -> dict[str, OvsBridge]:
    """The bridges that are to be there, real ones first. Raises `NetworkError` for a plan that cannot be.

    A bridge without an uplink that cards are on stays as long as they are there, whether the plan has it or not.
    """
    bonds = {bond.name: bond for bond in plan.bonds}
    _check_members(plan, bonds)
    wanted: dict[str, OvsBridge] = {}
    for bridge in sorted(plan.bridges, key=lambda bridge: bridge.tag >= 0):
        _check(bridge, wanted, present)
        if not bridge.uplink:
            if is_needed(bridge) or bridge.name in present.occupied():
                wanted[bridge.name] = internal(bridge.name, bridge.mtu)
            continue
        trunks = [there.name for there in wanted.values() if _leads_by(there, bridge.uplink)]
        if bridge.tag < 0 and trunks:
            raise NetworkError(f"{bridge.uplink} is the uplink of more than one network for the same packets")
        uplink, mac = uplink_of(bridge.uplink, bonds), _mac(bridge.uplink, bonds, macs)
        if bridge.tag < 0:
            wanted[bridge.name] = OvsBridge(bridge.name, uplink=uplink, mtu=bridge.mtu, mac=mac)
            continue
        trunk = trunks[0] if trunks else trunk_name(bridge.uplink)
        if not trunks:
            mtu = max(other.mtu for other in plan.bridges if other.uplink == bridge.uplink)
            wanted[trunk] = OvsBridge(trunk, uplink=uplink, mtu=mtu, mac=mac)
        _check_tag(bridge, trunk, wanted)
        wanted[bridge.name] = OvsBridge(bridge.name, trunk, bridge.tag, mtu=bridge.mtu, mac=mac)
    for name in sorted(present.occupied() - wanted.keys()):
        wanted[name] = internal(name, present.bridges[name].mtu)
    return dict(sorted(wanted.items(), key=lambda item: bool(item[1].parent)))


def internal(name: str, mtu: int) -> OvsBridge:
    """A bridge without an uplink."""
    return OvsBridge(name, mtu=mtu, mac=bridge_mac(name))


def trunk_name(uplink: str) -> str:
    """The bridge below the VLANs of an uplink that has no untagged network."""
    return f"trunk-{hashlib.sha256(uplink.encode()).hexdigest()[:8]}"


def uplink_of(name: str, bonds: Mapping[str, BondSpec]) -> Uplink:
    """The port that leads out by this interface or bond. Raises `NetworkError`."""
    bond = bonds.get(name)
    if bond is None:
        return Uplink(name, (name,))
    if bond.mode not in BOND_MODES:
        raise NetworkError(f"bond {name}: there is no mode {bond.mode!r}")
    if len(bond.members) < 2:
        # Open vSwitch has no bond of one; a single interface behaves the same.
        return Uplink(name, bond.members)
    mode, lacp = BOND_MODES[bond.mode]
    if mode == "balance-tcp" and bond.properties.get("hashing_algorithm") == "src_mac":
        mode = "balance-slb"
    settings = {"bond_mode": mode, "lacp": lacp}
    for key, column in (("updelay", "bond_updelay"), ("downdelay", "bond_downdelay")):
        if bond.properties.get(key, "").isdecimal():
            settings[column] = bond.properties[key]
    for key, option in (("miimon", "bond-miimon-interval"), ("rebalance-interval", "bond-rebalance-interval")):
        if bond.properties.get(key, "").isdecimal():
            settings[f"other_config:{option}"] = bond.properties[key]
    if lacp == "active":
        settings["other_config:lacp-time"] = "fast" if bond.properties.get("lacp-time") == "fast" else "slow"
        settings["other_config:lacp-fallback-ab"] = str(bond.properties.get("lacp-fallback-ab") != "false").lower()
    return Uplink(name, bond.members, settings)


def commands(present: Present, wanted: Mapping[str, OvsBridge], datapath: str) -> list[Command]:
    """One transaction that leads from what is there to what is wanted; cards stay on their networks."""
    stay = {name for name, there in present.bridges.items() if name in wanted and not _must_go(there, wanted[name])}
    stay -= {name for name in stay if present.bridges[name].parent and present.bridges[name].parent not in stay}
    lost = sorted(present.bridges.keys() - stay, key=lambda name: (not present.bridges[name].parent, name))
    kept = [(present.bridges[name], wanted[name]) for name in present.bridges if name in stay]
    transaction: list[Command] = [["--if-exists", "del-br", name] for name in lost]
    # An interface is on one bridge only: every uplink that goes leaves before any comes.
    transaction += [
        ["--if-exists", "del-port", there.name, there.uplink.name]
        for there, bridge in kept
        if there.uplink is not None and not _same_port(there.uplink, bridge.uplink)
    ]
    for bridge in wanted.values():
        transaction += _bridge(bridge, present.bridges[bridge.name] if bridge.name in stay else None, datapath)
    for name, card in present.cards.items():
        if card.bridge not in stay and card.bridge in wanted:
            transaction += join(name, card)
    return transaction


def join(name: str, card: CardPort) -> list[Command]:
    """The commands that put a card on its bridge, or change what is noted of it."""
    marks = (f"external_ids:{MARK}=card", f"external_ids:{CARD}={json.dumps(card.told)}")
    return [
        ["--may-exist", "add-port", card.bridge, name],
        ["set", "Interface", name, f"ofport_request={card.number}"],
        ["set", "Port", name, *marks],
    ]


def read_present(tables: Mapping[str, Iterable[Row]]) -> Present:
    """What is there, from the rows of `TABLES`."""
    ports = {row["_uuid"]: row for row in tables["Port"]}
    names = {row["_uuid"]: row["name"] for row in tables["Interface"]}
    interfaces = {row["name"]: row for row in tables["Interface"]}
    numbers = {row["name"]: row["ofport_request"] for row in tables["Interface"] if row["ofport_request"] != []}
    found: dict[str, OvsBridge] = {}
    cards: dict[str, CardPort] = {}
    for row in tables["Bridge"]:
        if MARK not in row["external_ids"]:
            continue
        name = str(row["name"])
        members = [ports[uuid] for uuid in _as_list(row["ports"]) if uuid in ports]
        fakes: dict[int, str] = {_tag(port): port["name"] for port in members if port["fake_bridge"] is True}
        uplinks = [_read_uplink(port, names) for port in members if port["external_ids"].get(MARK) == "uplink"]
        mac = row["other_config"].get("hwaddr", "")
        found[name] = OvsBridge(name, uplink=uplinks[0] if uplinks else None, mtu=_mtu(interfaces, name), mac=mac)
        for tag, fake in fakes.items():
            mac = interfaces[fake]["mac"] if fake in interfaces else ""
            found[fake] = OvsBridge(fake, name, tag, mtu=_mtu(interfaces, fake), mac=mac if mac != [] else "")
        for port in members:
            if port["external_ids"].get(MARK) == "card":
                told = port["external_ids"].get(CARD, "")
                cards[port["name"]] = CardPort(fakes.get(_tag(port), name), numbers.get(port["name"], 0), told)
    return Present(
        found,
        cards,
        foreign=frozenset(row["name"] for row in tables["Bridge"] if MARK not in row["external_ids"]),
        active={row["name"]: row["bond_active_slave"] for row in tables["Port"] if row["bond_active_slave"] != []},
        numbers=frozenset(numbers.values()),
        errors={row["name"]: row["error"] for row in tables["Interface"] if row["error"] != []},
    )


def _mtu(interfaces: Mapping[str, Row], name: str) -> int:
    mtu = interfaces[name]["mtu_request"] if name in interfaces else 1500
    return mtu if isinstance(mtu, int) else 1500


def _read_uplink(port: Row, names: Mapping[str, str]) -> Uplink:
    members = tuple(names[uuid] for uuid in _as_list(port["interfaces"]) if uuid in names)
    told = port["external_ids"].get("domzero-settings", "")
    settings = dict(pair.split("=", 1) for pair in told.split(" ") if "=" in pair)
    return Uplink(port["name"], members, settings)


def _tag(port: Row) -> int:
    tag = port["tag"]
    return tag if isinstance(tag, int) else -1


def _as_list(value: object) -> list[str]:
    """A set of one is written as its only member (RFC 7047, 5.1)."""
    return list(value) if isinstance(value, list) else [str(value)]


def _bridge(bridge: OvsBridge, there: OvsBridge | None, datapath: str) -> Iterator[Command]:
    if bridge.parent:
        if there is None:
            yield ["add-br", bridge.name, bridge.parent, str(bridge.tag)]
            yield ["set", "Port", bridge.name, f"external_ids:{MARK}=fake"]
        if bridge.mac and (there is None or there.mac != bridge.mac):
            yield ["set", "Interface", bridge.name, f"mac={json.dumps(bridge.mac)}"]
    else:
        if there is None:
            yield ["add-br", bridge.name]
            # What no flow allows is dropped, from the first moment.
            settings = (f"datapath_type={datapath}", "fail_mode=secure", f"external_ids:{MARK}=bridge")
            yield ["set", "Bridge", bridge.name, *settings]
        if bridge.mac and (there is None or there.mac != bridge.mac):
            yield ["set", "Bridge", bridge.name, f"other_config:hwaddr={json.dumps(bridge.mac)}"]
        yield from _uplink(bridge, there)
    if there is None or there.mtu != bridge.mtu:
        yield ["set", "Interface", bridge.name, f"mtu_request={bridge.mtu}"]


def _uplink(bridge: OvsBridge, there: OvsBridge | None) -> Iterator[Command]:
    before = there.uplink if there is not None else None
    if bridge.uplink is None:
        return
    if before is not None and _same_port(before, bridge.uplink):
        if before.settings != bridge.uplink.settings:
            yield from _withdrawn(before, bridge.uplink)
            yield _settings(bridge.uplink)
    elif len(bridge.uplink.members) > 1:
        yield ["add-bond", bridge.name, bridge.uplink.name, *bridge.uplink.members]
        yield _settings(bridge.uplink)
    else:
        yield ["add-port", bridge.name, bridge.uplink.members[0]]
        yield _settings(bridge.uplink)


def _settings(uplink: Uplink) -> Command:
    """The columns of an uplink's port, and beside them what they were set to: others may write there, too."""
    name = uplink.name if len(uplink.members) > 1 else uplink.members[0]
    told = " ".join(f"{key}={value}" for key, value in sorted(uplink.settings.items()))
    columns = [f"{key}={value}" for key, value in sorted(uplink.settings.items())]
    return [
        "set",
        "Port",
        name,
        *columns,
        f"external_ids:{MARK}=uplink",
        f"external_ids:domzero-settings={json.dumps(told)}",
    ]


def _withdrawn(before: Uplink, uplink: Uplink) -> Iterator[Command]:
    """Settings that were made and are no longer wanted."""
    for key in sorted(before.settings.keys() - uplink.settings.keys()):
        column, _, option = key.partition(":")
        yield ["remove", "Port", before.name, column, option] if option else ["set", "Port", before.name, f"{column}=0"]


def _same_port(before: Uplink, wanted: Uplink | None) -> bool:
    if wanted is None:
        return False
    return set(before.members) == set(wanted.members) and (len(wanted.members) < 2 or before.name == wanted.name)


def _must_go(there: OvsBridge, bridge: OvsBridge) -> bool:
    """Whether a bridge cannot become what is wanted but has to be made anew."""
    return (there.parent, there.tag) != (bridge.parent, bridge.tag)


def _leads_by(bridge: OvsBridge, uplink: str) -> bool:
    return bridge.uplink is not None and bridge.uplink.name == uplink


def _mac(uplink: str, bonds: Mapping[str, BondSpec], macs: Mapping[str, str]) -> str:
    bond = bonds.get(uplink)
    if bond is None:
        return macs.get(uplink, "")
    return bond.mac or macs.get(bond.members[0], "")


def _check(bridge: BridgeSpec, wanted: Mapping[str, OvsBridge], present: Present) -> None:
    check_name(bridge.name)
    if bridge.name in wanted:
        raise NetworkError(f"the plan has {bridge.name} twice")
    if bridge.name in present.foreign:
        raise NetworkError(f"the bridge {bridge.name} is not ours")


def _check_tag(bridge: BridgeSpec, trunk: str, wanted: Mapping[str, OvsBridge]) -> None:
    if not 1 <= bridge.tag <= LARGEST_TAG:
        raise NetworkError(f"{bridge.name}: Open vSwitch has no VLAN {bridge.tag}")
    if any(there.parent == trunk and there.tag == bridge.tag for there in wanted.values()):
        raise NetworkError(f"VLAN {bridge.tag} of {bridge.uplink} is the uplink of more than one network")


def _check_members(plan: NetworkPlan, bonds: Mapping[str, BondSpec]) -> None:
    members: dict[str, str] = {}
    for bond in plan.bonds:
        check_name(bond.name)
        if [other.name for other in plan.bonds].count(bond.name) > 1:
            raise NetworkError(f"the plan has {bond.name} twice")
        if not bond.members:
            raise NetworkError(f"bond {bond.name} has no members")
        for member in bond.members:
            if members.setdefault(member, bond.name) != bond.name:
                raise NetworkError(f"{member} is a member of {members[member]} and {bond.name}")
    both = {bridge.uplink for bridge in plan.bridges if bridge.uplink not in bonds} & members.keys()
    if both:
        raise NetworkError(f"{min(both)} is a member of a bond, and an uplink as well")
