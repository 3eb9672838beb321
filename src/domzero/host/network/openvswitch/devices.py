"""The bridges and bonds of ours in Open vSwitch, as they are now. Blocking work for the network thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from domzero.host.network.ethtool import Ethtool
from domzero.host.network.interfaces import InterfaceFacts, describe, read_name_servers
from domzero.host.network.links import Link, Links
from domzero.host.network.openvswitch.layout import OvsBridge, Present, trunk_name
from domzero.host.network.protocol import DeviceState, InterfaceInfo
from domzero.host.network.resolver import Resolver


def read_devices(links: Links, present: Present, resolver: Resolver) -> list[DeviceState]:
    """A bridge carries where its uplink does; one without an uplink always does. What only holds VLANs is left out."""
    by_name = {link.name: link for link in links.all()}
    addresses, gateways = links.addresses(), links.gateways()
    described: list[DeviceState] = []
    for bridge in present.bridges.values():
        link = by_name.get(bridge.name)
        if link is None or (bridge.uplink is not None and bridge.name == trunk_name(bridge.uplink.name)):
            continue
        above = present.bridges.get(bridge.parent, bridge)
        members = list(_members(above, by_name))
        described.append(
            DeviceState(
                name=link.name,
                mac=link.mac,
                mtu=link.mtu,
                carrier=any(member.carrier for member in members) if above.uplink is not None else True,
                speed=_speed(members),
                addresses=tuple(addresses.get(link.index, ())),
                gateway=gateways.get(link.index, ""),
                dns=resolver.servers(link.name),
                received_bytes=link.received_bytes,
                sent_bytes=link.sent_bytes,
            )
        )
    described += [bond for bridge in present.bridges.values() for bond in _bond(bridge, by_name, present)]
    return described


def read_interfaces(links: Links, facts: InterfaceFacts, present: Present) -> list[InterfaceInfo]:
    """As `describe`. The addresses of an uplink are those of its bridge."""
    indices = {link.name: link.index for link in links.all()}
    addresses, gateways = links.addresses(), links.gateways()
    holders = {
        member: indices[bridge.name]
        for bridge in present.bridges.values()
        if bridge.uplink is not None and bridge.name in indices
        for member in bridge.uplink.members
    }
    found = []
    for interface in describe(links, facts):
        if interface.name in present.bridges:
            continue
        holder = holders.get(interface.name)
        if holder is not None and not interface.addresses:
            gateway = gateways.get(holder, "")
            dns = read_name_servers(facts.resolver) if gateway else ()
            interface = replace(interface, addresses=tuple(addresses.get(holder, ())), gateway=gateway, dns=dns)
        found.append(interface)
    return found


def _bond(bridge: OvsBridge, links: dict[str, Link], present: Present) -> Iterator[DeviceState]:
    if bridge.uplink is None or len(bridge.uplink.members) < 2:
        return
    members = list(_members(bridge, links))
    active = present.active.get(bridge.uplink.name, "")
    if not members:
        return
    single = bridge.uplink.settings.get("bond_mode") == "active-backup"
    yield DeviceState(
        name=bridge.uplink.name,
        mac=bridge.mac or members[0].mac,
        mtu=min(member.mtu for member in members),
        carrier=any(member.carrier for member in members),
        speed=_speed(members),
        addresses=(),
        gateway="",
        dns=(),
        active_member=next((member.name for member in members if single and member.mac == active), ""),
        received_bytes=sum(member.received_bytes for member in members),
        sent_bytes=sum(member.sent_bytes for member in members),
    )


def _members(bridge: OvsBridge, links: dict[str, Link]) -> Iterator[Link]:
    names = bridge.uplink.members if bridge.uplink is not None else ()
    return (links[name] for name in names if name in links)


def _speed(members: Iterable[Link]) -> int:
    found = [medium.speed for member in members if (medium := Ethtool(member.name).link()) is not None]
    return max(found, default=0)
