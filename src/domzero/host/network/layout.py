"""From a plan to the state that each interface is to have: pure.

`wanted_layout` names the interfaces that are the plan's affair, and no other: those it mentions, those that domzero
made, and those that an earlier plan mentioned and that now get back what they had (`found`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from domzero.host.network.addresses import (
    IPV6_OFF,
    NOTHING,
    Addressing,
    Ipv6Switches,
    ipv4_wanted,
    ipv6_switches,
    ipv6_wanted,
)
from domzero.host.network.bond import kernel_options, mac_of
from domzero.host.network.ethtool import normalised
from domzero.host.network.plan import BondSpec, BridgeSpec, InterfaceSpec, NetworkPlan
from domzero.host.network.protocol import NetworkError
from domzero.host.network.tap import NAME_LIMIT
from domzero.host.network.vlan import vlan_name

BRIDGE, BOND, VLAN, TAP = "bridge", "bond", "vlan", "tun"
MADE = (BRIDGE, BOND, VLAN)
OF_ALL = ("all", "default")
"""Where the kernel has settings for interfaces, those for every interface have these names."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class State:
    """One interface, as it is or is to be. In a wanted state, None and empty settings mean: as it happens to be."""

    kind: str = ""
    ours: bool = False
    master: str = ""
    mac: str | None = None
    mtu: int | None = None
    up: bool = True
    parent: str = ""
    """What a VLAN sub-interface stands on."""
    options: Mapping[str, int] = field(default_factory=dict)
    """Of a bond, or the VLAN's `id`."""
    ipv4: Addressing | None = None
    ipv6: Addressing | None = None
    ipv6_switches: Ipv6Switches | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


Layout = Mapping[str, State]
Wanted = Mapping[str, State | None]
"""None: the interface is not to be there."""


def wanted_layout(plan: NetworkPlan, present: Layout, found: Layout) -> dict[str, State | None]:
    """What is to become of each interface that is the plan's affair. Raises `NetworkError` for a plan that cannot be.

    `found` has the interfaces that are not ours and were touched, as they were before.
    """
    macs = {name: state.mac or "" for name, state in {**present, **found}.items()}
    wanted: dict[str, State | None] = {}
    for bond in plan.bonds:
        _claim(bond.name, wanted, present, BOND)
        wanted[bond.name] = _bond(bond, plan, present, macs)
        macs[bond.name] = mac_of(bond, macs)
    physical = _physical(plan, wanted, present, found)
    for name in physical:
        _claim(name, wanted, present, "")
    wanted.update(physical)
    for bridge in plan.bridges:
        if not is_needed(bridge) and is_foreign_bridge(bridge.name, present):
            continue  # Somebody else's bridge may be used as it is.
        _claim(bridge.name, wanted, present, BRIDGE)
        _bridge(bridge, wanted, present, macs, found)
    return {**_rest(present, found), **wanted}


def is_needed(bridge: BridgeSpec) -> bool:
    """Whether a bridge is there even without cards."""
    spec = bridge.addresses
    return bool(bridge.uplink or bridge.dhcp_server) or spec.mode.value != "None" or spec.ipv6_mode.value != "None"


def is_foreign_bridge(name: str, present: Layout) -> bool:
    """Whether there is a bridge of that name that we did not make."""
    there = present.get(name)
    return there is not None and there.kind == BRIDGE and not there.ours


def bridge_mac(name: str) -> str:
    """A bridge's own address, always the same one for a name: locally administered, not multicast."""
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def check_name(name: str) -> None:
    """Raises `NetworkError` for what cannot be the name of an interface."""
    if len(name) > NAME_LIMIT or not NAME.fullmatch(name) or name in OF_ALL:
        raise NetworkError(f"{name!r} is no name for an interface")


def _claim(name: str, wanted: Wanted, present: Layout, kind: str) -> None:
    """Raises `NetworkError` when a name is used twice, or by somebody else."""
    check_name(name)
    if name in wanted:
        raise NetworkError(f"the plan has {name} twice")
    there = present.get(name)
    if kind and there is not None and not (there.ours and there.kind == kind):
        raise NetworkError(f"the interface {name} is not ours")
    if not kind and (there is None or there.ours):
        raise NetworkError(f"there is no interface {name} that leads out")


def _bond(spec: BondSpec, plan: NetworkPlan, present: Layout, macs: Mapping[str, str]) -> State:
    options = kernel_options(spec)
    missing = [member for member in spec.members if member not in present]
    if missing:
        raise NetworkError(f"bond {spec.name}: there is no interface {missing[0]}")
    return State(
        kind=BOND,
        ours=True,
        mac=mac_of(spec, macs),
        mtu=_mtu(spec.name, spec.settings, plan),
        options=options,
        ipv4=NOTHING,
        ipv6=NOTHING,
        ipv6_switches=IPV6_OFF,
        settings=normalised(spec.settings),
    )


def _physical(plan: NetworkPlan, bonds: Wanted, present: Layout, found: Layout) -> dict[str, State]:
    """The interfaces that are not ours: what they had before, and what the plan says of them."""
    specs = {interface.device: interface for interface in plan.interfaces}
    masters = _members(plan)
    uplinks = {bridge.uplink for bridge in plan.bridges if bridge.uplink} - set(bonds)
    states: dict[str, State] = {}
    for name in dict.fromkeys((*specs, *sorted(masters.keys() | uplinks))):
        before = as_found(name, present, found)
        spec = specs.get(name, InterfaceSpec(name))
        bond = bonds.get(masters.get(name, ""))
        state = replace(
            before,
            up=True,
            mtu=bond.mtu if bond is not None else _mtu(name, spec.settings, plan, default=before.mtu),
            master=masters.get(name, before.master),
            mac=None if name in masters else before.mac,
            settings={**before.settings, **normalised(spec.settings)},
        )
        alone = any(bridge.uplink == name and bridge.tag < 0 for bridge in plan.bridges)
        states[name] = bare(state) if alone or name in masters else state
    return states


def _members(plan: NetworkPlan) -> dict[str, str]:
    """The bond of each member. Raises `NetworkError` when a member has two, or leads out by itself as well."""
    masters: dict[str, str] = {}
    for bond in plan.bonds:
        for member in bond.members:
            if masters.setdefault(member, bond.name) != bond.name:
                raise NetworkError(f"{member} is a member of {masters[member]} and {bond.name}")
    both = {bridge.uplink for bridge in plan.bridges} & masters.keys()
    if both:
        raise NetworkError(f"{min(both)} is a member of a bond, and an uplink as well")
    return masters


def as_found(name: str, present: Layout, found: Layout) -> State:
    """What an interface that is not ours was before it was touched; where that is not on record, as it is."""
    there, before = present.get(name), found.get(name)
    if there is None:
        raise NetworkError(f"there is no interface {name}")
    if before is not None and before.ipv4 is not None:
        return before
    master = present.get(there.master)
    return replace(before or there, master="" if master is not None and master.ours else there.master)


def _bridge(
    spec: BridgeSpec, wanted: dict[str, State | None], present: Layout, macs: Mapping[str, str], found: Layout
) -> None:
    """A bridge's state, and that its uplink is its port."""
    there = present.get(spec.name)
    if not is_needed(spec) and there is None:
        return
    mac = bridge_mac(spec.name)
    if spec.uplink:
        mac = macs[spec.uplink]
        port = spec.uplink if spec.tag < 0 else vlan_name(spec.uplink, spec.tag)
        if spec.tag >= 0:
            _claim(port, wanted, present, VLAN)
            wanted[port] = _vlan(spec, mac)
        _enslave(port, spec, wanted)
    elif not is_needed(spec) and not has_ports(spec.name, present, found):
        wanted[spec.name] = None
        return
    wanted[spec.name] = State(
        kind=BRIDGE,
        ours=True,
        mac=mac,
        mtu=spec.mtu,
        ipv4=ipv4_wanted(spec.addresses, spec.dhcp_server),
        ipv6=ipv6_wanted(spec.addresses),
        ipv6_switches=ipv6_switches(spec.addresses),
        settings=normalised(spec.settings),
    )


def _enslave(port: str, spec: BridgeSpec, wanted: dict[str, State | None]) -> None:
    state = wanted[port]
    if state is None or state.master in {bridge for bridge, there in wanted.items() if there and there.kind == BRIDGE}:
        raise NetworkError(f"{spec.uplink} is the uplink of more than one network for the same packets")
    wanted[port] = replace(state, master=spec.name)


def _vlan(spec: BridgeSpec, mac: str) -> State:
    return State(
        kind=VLAN,
        ours=True,
        mac=mac,
        mtu=spec.mtu,
        parent=spec.uplink,
        options={"id": spec.tag},
        ipv4=NOTHING,
        ipv6=NOTHING,
        ipv6_switches=IPV6_OFF,
    )


def _rest(present: Layout, found: Layout) -> dict[str, State | None]:
    """What the plan does not mention: what was found gets back what it had, what we made goes.

    A bridge that cards are on stays as long as they are there, without anything else.
    """
    rest: dict[str, State | None] = {name: as_found(name, present, found) for name in found if name in present}
    for name, state in present.items():
        if not state.ours or state.kind not in MADE:
            continue
        kept = state.kind == BRIDGE and has_ports(name, present, found)
        rest[name] = replace(bare(state), mac=bridge_mac(name), settings={}) if kept else None
    return rest


def bare(state: State) -> State:
    """Without any address of the host's."""
    return replace(
        state, ipv4=NOTHING, ipv6=NOTHING, ipv6_switches=IPV6_OFF if state.ipv6_switches is not None else None
    )


def has_ports(bridge: str, present: Layout, found: Layout) -> bool:
    """Whether a card is on it, or an interface that somebody else put there."""
    return any(
        state.master == bridge and (state.kind == TAP if state.ours else name not in found)
        for name, state in present.items()
    )


def _mtu(name: str, settings: Mapping[str, str], plan: NetworkPlan, default: int | None = None) -> int | None:
    """An uplink's MTU: the given one, else the largest of the networks it carries, else what it had."""
    given = settings.get("mtu", "").strip()
    if given:
        if not (given.isascii() and given.isdecimal()):
            raise NetworkError(f"{name} cannot have an MTU of {given[:40]!r}")
        return int(given[:9])
    carried = [bridge.mtu for bridge in plan.bridges if bridge.uplink == name]
    return max(carried) if carried else default
