"""What an Open vSwitch plan asks of the kernel's interfaces: addresses and settings, no bridges.

The switch makes the interface of each bridge; here it only gets its addresses. Uplinks lose theirs, as with Linux
bridges, and get them back when they are uplinks no longer.
"""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from domzero.host.network import files
from domzero.host.network.addresses import IPV6_OFF, NOTHING, ipv4_wanted, ipv6_switches, ipv6_wanted
from domzero.host.network.ethtool import normalised
from domzero.host.network.layout import Layout, State, as_found, bare, is_needed
from domzero.host.network.links import Links
from domzero.host.network.openvswitch.layout import trunk_name
from domzero.host.network.plan import BridgeSpec, InterfaceSpec, NetworkPlan
from domzero.host.network.planned import named_interfaces, taken_interfaces


def addressed_layout(
    plan: NetworkPlan, present: Layout, found: Layout, *, ours: AbstractSet[str]
) -> dict[str, State | None]:
    """As `wanted_layout`, where bridges, bonds and VLANs are the switch's. Raises `NetworkError`.

    `ours` are the bridges that the switch has for us: those that the plan does not need lose the host's addresses.
    """
    wanted: dict[str, State | None] = {name: as_found(name, present, found) for name in found if name in present}
    for name in sorted(ours & present.keys()):
        wanted[name] = State(present[name].kind, up=False, ipv4=NOTHING, ipv6=NOTHING, ipv6_switches=IPV6_OFF)
    wanted.update(_physical(plan, present, found))
    for bridge in plan.bridges:
        there = present.get(bridge.name)
        if there is None or not is_needed(bridge):
            continue
        before = found.get(bridge.uplink)
        if before is not None and bridge.name == trunk_name(bridge.uplink):
            wanted[bridge.name] = State(
                kind=there.kind,
                mtu=bridge.mtu,
                ipv4=before.ipv4,
                ipv6=before.ipv6,
                ipv6_switches=before.ipv6_switches,
            )
            continue
        wanted[bridge.name] = State(
            kind=there.kind,
            ours=there.ours,
            mtu=bridge.mtu,
            ipv4=ipv4_wanted(bridge.addresses, bridge.dhcp_server),
            ipv6=ipv6_wanted(bridge.addresses),
            ipv6_switches=ipv6_switches(bridge.addresses),
            settings=normalised(bridge.settings),
        )
    return wanted


def _physical(plan: NetworkPlan, present: Layout, found: Layout) -> dict[str, State]:
    specs = {interface.device: interface for interface in plan.interfaces}
    taken = taken_interfaces(plan)
    states: dict[str, State] = {}
    for name in sorted(named_interfaces(plan)):
        was = as_found(name, present, found)
        settings = normalised(specs.get(name, InterfaceSpec(name)).settings)
        mtu = largest_mtu(name, plan) or was.mtu
        state = replace(was, up=True, mtu=mtu, settings={**was.settings, **settings})
        # Its master in the kernel's eyes is the switch's own affair.
        states[name] = bare(replace(state, master=present[name].master)) if name in taken else state
    return states


def largest_mtu(name: str, plan: NetworkPlan) -> int | None:
    """What an uplink needs for all of its networks."""
    bonds = {bond.name for bond in plan.bonds if name in bond.members} | {name}
    return max((bridge.mtu for bridge in plan.bridges if bridge.uplink in bonds), default=None)


def with_trunks(plan: NetworkPlan) -> NetworkPlan:
    """The plan with the bridges below VLANs of an uplink that has no untagged network: they get its addresses, for
    what is a port of the switch hands every packet to it."""
    bonds = {bond.name for bond in plan.bonds}
    plain = {bridge.uplink for bridge in plan.bridges if bridge.tag < 0} | bonds
    trunks: dict[str, BridgeSpec] = {}
    for bridge in plan.bridges:
        if bridge.uplink and bridge.uplink not in plain:
            name = trunk_name(bridge.uplink)
            mtu = max(bridge.mtu, trunks[name].mtu if name in trunks else 0)
            trunks[name] = BridgeSpec(name, mtu=mtu, uplink=bridge.uplink)
    return replace(plan, bridges=(*plan.bridges, *trunks.values()))


def with_whole_frames(plan: NetworkPlan) -> NetworkPlan:
    """The plan, where uplinks hand over frames as they came: the switch's own datapath takes no joined ones."""
    specs = {interface.device: interface for interface in plan.interfaces}
    bonds = {bond.name for bond in plan.bonds}
    uplinks = {bridge.uplink for bridge in plan.bridges if bridge.uplink} - bonds
    uplinks |= {member for bond in plan.bonds for member in bond.members}
    for name in sorted(uplinks):
        spec = specs.get(name, InterfaceSpec(name))
        specs[name] = replace(spec, settings={**spec.settings, "gro": "off", "lro": "off"})
    return replace(plan, interfaces=tuple(specs.values()))


def write_indices(path: Path, links: Links, plan: NetworkPlan) -> None:
    """Note which interface each bridge of a plan is: another one may come under its name."""
    names = {bridge.name for bridge in plan.bridges}
    indices = {link.name: link.index for link in links.all() if link.name in names}
    if indices:
        files.write(path, json.dumps(indices))
    else:
        files.remove(path)


def stale_bridges(path: Path, links: Links) -> set[str]:
    """The bridges that are no longer the interface that was noted, or of which it is not known."""
    present = {link.name: link.index for link in links.all()}
    try:
        noted = json.loads(files.read(path) or "{}")
    except ValueError:
        noted = {}
    return {name for name, index in present.items() if noted.get(name) != index}
