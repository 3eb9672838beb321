"""Layouts and the kernel: reading what there is, and carrying out steps. Blocking work for the network thread."""

from __future__ import annotations

import socket
from collections.abc import Set as AbstractSet

from domzero.host.network import addresses, ethtool
from domzero.host.network.bond import LACP
from domzero.host.network.changes import (
    Join,
    Make,
    SetAddresses,
    SetIpv6,
    SetMac,
    SetMtu,
    SetOptions,
    Step,
    Switch,
    Tune,
    Unmake,
)
from domzero.host.network.layout import BOND, BRIDGE, MADE, VLAN, State
from domzero.host.network.links import KernelError, Link, Links
from domzero.host.network.protocol import NetworkError

OPTIONS = ("mode", "miimon", "updelay", "downdelay")
LACP_OPTIONS = ("xmit_hash_policy", "ad_lacp_rate")
UNKNOWN_KIND = 95
"""EOPNOTSUPP: the kernel has no such kind of interface."""

MISSING = {
    VLAN: "this kernel has no 802.1Q; use the network backend openvswitch",
    BOND: "this kernel has no bonding; use the network backend openvswitch",
    BRIDGE: "this kernel has no bridges",
}


def read_layout(links: Links, tuned: AbstractSet[str] = frozenset()) -> dict[str, State]:
    """Every interface but loopback; ethtool's settings of those that are named, and of ours."""
    present = {link.index: link for link in links.all() if not link.is_loopback}
    found = addresses.read_all(links)
    return {
        link.name: State(
            kind=link.kind,
            ours=link.ours,
            master=_name(present, link.master),
            mac=link.mac,
            mtu=link.mtu,
            up=link.up,
            parent=_name(present, link.parent) if link.kind == VLAN else "",
            options=_options(link),
            ipv4=found.get((link.index, socket.AF_INET), addresses.NOTHING),
            ipv6=found.get((link.index, socket.AF_INET6), addresses.NOTHING),
            ipv6_switches=addresses.read_ipv6(link.name),
            settings=ethtool.read(link.name) if link.name in tuned or (link.ours and link.kind in MADE) else {},
        )
        for link in present.values()
    }


def perform(links: Links, step: Step) -> None:
    """Carry out one step. Raises `NetworkError` when the kernel refuses it."""
    match step:
        case Make(name, state):
            _make(links, name, state)
        case Unmake(name):
            present = links.find(name)
            if present is not None:
                links.remove(present)
        case Join(name, master):
            links.change(name, master=links.need(master).index if master else 0)
        case Switch(name, up):
            links.change(name, state="up" if up else "down")
        case SetMac(name, mac):
            links.change(name, address=mac)
        case SetMtu(name, mtu):
            links.change(name, mtu=mtu)
        case SetOptions(name, options):
            for key, value in options.items():
                links.change(name, kind=BOND, **{f"bond_{key}": value})
        case SetIpv6(name, switches):
            addresses.assign_ipv6(name, switches)
        case SetAddresses(name, version, addressing):
            addresses.assign(links, name, socket.AF_INET if version == 4 else socket.AF_INET6, addressing)
        case Tune(name, settings):
            ethtool.assign(name, settings)


def _make(links: Links, name: str, state: State) -> None:
    try:
        if state.kind == BRIDGE:
            links.add_bridge(name, state.mac or "")
        elif state.kind == BOND:
            options = {f"bond_{key}": value for key, value in state.options.items()}
            links.add(name, BOND, address=state.mac, **options)
        elif state.kind == VLAN:
            parent = links.need(state.parent).index
            links.add(name, VLAN, link=parent, address=state.mac, vlan_id=state.options["id"])
        else:
            raise NetworkError(f"{name} is not ours to make")
    except KernelError as error:
        if error.code == UNKNOWN_KIND:
            raise NetworkError(f"{name}: {MISSING[state.kind]}") from error
        raise


def _options(link: Link) -> dict[str, int]:
    if link.kind == VLAN:
        return {"id": link.details.get("id", -1)}
    if link.kind != BOND:
        return {}
    keys = (*OPTIONS, *LACP_OPTIONS) if link.details.get("mode") == LACP else OPTIONS
    return {key: link.details[key] for key in keys if key in link.details}


def _name(present: dict[int, Link], index: int) -> str:
    return present[index].name if index in present else ""
