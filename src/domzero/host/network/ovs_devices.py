"""The bridges and bonds of ours in Open vSwitch, as they are now. Blocking work for the network thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from domzero.host.network.ethtool import Ethtool
from domzero.host.network.links import Link, Links
from domzero.host.network.ovs_layout import MARK, OvsBridge, Present
from domzero.host.network.ovs_tool import Row
from domzero.host.network.protocol import DeviceState
from domzero.host.network.resolver import Resolver


def read_devices(links: Links, present: Present, ports: Iterable[Row], resolver: Resolver) -> list[DeviceState]:
    """A bridge carries where its uplink does; one without an uplink always does."""
    by_name = {link.name: link for link in links.all()}
    addresses, gateways = links.addresses(), links.gateways()
    described: list[DeviceState] = []
    for bridge in present.bridges.values():
        link = by_name.get(bridge.name)
        if link is None:
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
    described += [bond for bridge in present.bridges.values() for bond in _bond(bridge, by_name, ports)]
    return described


def _bond(bridge: OvsBridge, links: dict[str, Link], ports: Iterable[Row]) -> Iterator[DeviceState]:
    if bridge.uplink is None or len(bridge.uplink.members) < 2:
        return
    members = list(_members(bridge, links))
    active = next((row["bond_active_slave"] for row in ports if row["name"] == bridge.uplink.name), "")
    is_ours = any(row["name"] == bridge.uplink.name and MARK in row["external_ids"] for row in ports)
    if not members or not is_ours:
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
