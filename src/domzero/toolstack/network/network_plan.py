"""From rows to a plan: what the networks, interfaces, VLANs and bonds of the database make of a host. Pure.

Settings that take effect at the next plug only (MTU, `ethtool-…`, routes) are kept by `settled` as they are in force
for whatever is not plugged anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network

from domzero.engine.database import Database
from domzero.host.network.plan import (
    AddressMode,
    AddressSpec,
    BondSpec,
    BridgeSpec,
    InterfaceSpec,
    Ipv6Mode,
    NetworkPlan,
)
from domzero.idl.records import Record
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.network_keys import (
    BOND_MODES,
    bond_properties,
    dhcp_server,
    domain_of,
    ethtool_settings,
    is_on,
    mtu_of,
    routes_of,
)


@dataclass(frozen=True, slots=True)
class NetworkRows:
    """The rows that a host's plan depends on."""

    networks: Mapping[Ref, Record]
    pifs: Mapping[Ref, Record]
    """Those of this host."""
    bonds: Mapping[Ref, Record]
    vlans: Mapping[Ref, Record]
    busy: frozenset[Ref]
    """Networks that cards are on, or are about to be."""
    present: frozenset[str] | None = None
    """The interfaces that the host has; None takes all that there are rows of."""

    def is_usable(self, pif: Record) -> bool:
        """Whether domzero may and can configure what the PIF stands on."""
        if not pif["managed"]:
            return False
        if pif["VLAN_master_of"] != NULL_REF:
            below = self.below(pif)
            return below is not None and self.is_usable(below)
        if pif["bond_master_of"]:
            return any(self.is_usable(member) for member in self.members(pif))
        return bool(pif["physical"]) and (self.present is None or pif["device"] in self.present)

    def is_up(self, pif: Record) -> bool:
        """Whether the PIF has a bridge on the host."""
        return bool(pif["currently_attached"]) and pif["bond_slave_of"] == NULL_REF and self.is_usable(pif)

    def below(self, vlan_pif: Record) -> Record | None:
        """The PIF that carries a VLAN's tagged packets."""
        vlan = self.vlans.get(vlan_pif["VLAN_master_of"])
        return None if vlan is None else self.pifs.get(vlan["tagged_PIF"])

    def members(self, master: Record) -> list[Record]:
        """The PIFs of a bond, the one that gives its addresses first, then by name."""
        bond = self.bonds.get(master["bond_master_of"][0])
        if bond is None:
            return []
        first = bond["primary_slave"]
        refs = sorted(
            bond["slaves"], key=lambda ref: (ref != first, self.pifs[ref]["device"] if ref in self.pifs else "")
        )
        return [self.pifs[ref] for ref in refs if ref in self.pifs]


def rows_of(
    database: Database, host: Ref, *, wanted: Collection[Ref] = (), present: frozenset[str] | None = None
) -> NetworkRows:
    """The host's rows as they are now. `wanted` are networks that a card is about to join."""
    vifs = (row.record for row in database.rows("VIF").values())
    return NetworkRows(
        networks={ref: row.record for ref, row in database.rows("network").items()},
        pifs={ref: row.record for ref, row in database.rows("PIF").items() if row.record["host"] == host},
        bonds={ref: row.record for ref, row in database.rows("Bond").items()},
        vlans={ref: row.record for ref, row in database.rows("VLAN").items()},
        busy=frozenset(wanted) | {vif["network"] for vif in vifs if vif["currently_attached"]},
        present=present,
    )


def plan_for(rows: NetworkRows) -> NetworkPlan:
    """What the host's network is to be, everything as if plugged anew."""
    up = {pif["network"]: pif for pif in _by_device(rows.pifs.values()) if rows.is_up(pif)}
    way_out = default_route_pif(rows, up.values())
    bridges = [
        _bridge(rows, rows.networks[network], pif, leads_out=pif is way_out)
        for network, pif in up.items()
        if network in rows.networks
    ]
    inner = [
        internal_bridge(network, busy=ref in rows.busy)
        for ref, network in rows.networks.items()
        if ref not in up and network["managed"] and network["bridge"]
    ]
    carriers = list(_carriers(rows, up.values()))
    return NetworkPlan(
        interfaces=tuple(_interfaces(rows, carriers)),
        bonds=tuple(_bond(rows, pif) for pif in carriers if pif["bond_master_of"]),
        bridges=(*bridges, *inner),
    )


def internal_bridge(network: Record, *, busy: bool) -> BridgeSpec:
    """A network of this host alone. Its DHCP server runs while there are cards to serve."""
    config = network["other_config"]
    return BridgeSpec(
        name=network["bridge"],
        mtu=mtu_of(config) or network["MTU"],
        dhcp_server=dhcp_server(config) if busy and not network["PIFs"] else None,
        settings=ethtool_settings(config),
    )


def default_route_pif(rows: NetworkRows, up: Collection[Record]) -> Record | None:
    """The PIF by which the host reaches the world: one marked `defaultroute`, else that of management.

    No other may take the default route, so that giving an interface an address never cuts off who gave it. Only where
    management is disabled, and the machine has no gateway of its own, the first with a gateway leads out.
    """
    ordered = _by_device(up)
    marked = next((pif for pif in ordered if is_on(pif["other_config"].get("defaultroute", ""))), None)
    if marked is not None:
        return marked
    if any(pif["management"] or (pif["gateway"] and not pif["managed"]) for pif in rows.pifs.values()):
        return next((pif for pif in ordered if pif["management"]), None)
    return next((pif for pif in ordered if pif["gateway"] or pif["ip_configuration_mode"] == "DHCP"), None)


def settled(fresh: NetworkPlan, present: NetworkPlan, replugged: Collection[str]) -> NetworkPlan:
    """A fresh plan with the settings that are in force, except of the `replugged` devices and bridges."""
    interfaces = {spec.device: spec for spec in present.interfaces if spec.device not in replugged}
    bonds = {spec.name: spec for spec in present.bonds if spec.name not in replugged}
    bridges = {spec.name: spec for spec in present.bridges if spec.name not in replugged}
    return NetworkPlan(
        interfaces=tuple(interfaces.get(spec.device, spec) for spec in fresh.interfaces),
        bonds=tuple(_settled_bond(spec, bonds.get(spec.name)) for spec in fresh.bonds),
        bridges=tuple(_settled_bridge(spec, bridges.get(spec.name)) for spec in fresh.bridges),
    )


def _settled_bond(fresh: BondSpec, present: BondSpec | None) -> BondSpec:
    if present is None or present.members != fresh.members:
        return fresh
    return replace(present, mac=fresh.mac)


def _settled_bridge(fresh: BridgeSpec, present: BridgeSpec | None) -> BridgeSpec:
    if present is None or (present.uplink, present.tag) != (fresh.uplink, fresh.tag):
        return fresh
    return replace(
        fresh,
        mtu=present.mtu,
        settings=present.settings,
        addresses=replace(fresh.addresses, routes=present.addresses.routes, domain=present.addresses.domain),
        dhcp_server=fresh.dhcp_server and (present.dhcp_server or fresh.dhcp_server),
    )


def _by_device(pifs: Collection[Record]) -> list[Record]:
    return sorted(pifs, key=lambda pif: (pif["device"], pif["VLAN"]))


def _carriers(rows: NetworkRows, up: Collection[Record]) -> Iterator[Record]:
    """The physical interfaces and bonds that have to be there, once each."""
    seen: set[str] = set()
    for pif in up:
        carrier = pif if pif["VLAN_master_of"] == NULL_REF else rows.below(pif)
        if carrier is not None and carrier["device"] not in seen:
            seen.add(carrier["device"])
            yield carrier


def _interfaces(rows: NetworkRows, carriers: Collection[Record]) -> Iterator[InterfaceSpec]:
    for carrier in carriers:
        bonded = bool(carrier["bond_master_of"])
        for pif in rows.members(carrier) if bonded else [carrier]:
            if rows.is_usable(pif):
                yield InterfaceSpec(pif["device"], _interface_settings(rows, pif, carrier))


def _interface_settings(rows: NetworkRows, pif: Record, carrier: Record) -> dict[str, str]:
    """What of the hardware is set, the nearest word first: the interface's, its bond's, the network's MTU."""
    network = rows.networks.get(carrier["network"])
    size = mtu_of(pif["other_config"]) or mtu_of(carrier["other_config"])
    if not size and network is not None:
        size = mtu_of(network["other_config"]) or network["MTU"]
    properties = {**carrier["properties"], **({} if carrier["bond_master_of"] else pif["properties"])}
    gro = {"gro": properties["gro"]} if "gro" in properties else {}
    return {
        **gro,
        **ethtool_settings(carrier["other_config"]),
        **ethtool_settings(pif["other_config"]),
        **({"mtu": str(size)} if size else {}),
    }


def _bond(rows: NetworkRows, master: Record) -> BondSpec:
    bond = rows.bonds[master["bond_master_of"][0]]
    mode = master["other_config"].get("bond-mode", "")
    return BondSpec(
        name=master["device"],
        members=tuple(member["device"] for member in rows.members(master) if rows.is_usable(member)),
        mode=mode if mode in BOND_MODES else bond["mode"],
        mac=master["MAC"],
        properties=bond_properties(master["other_config"], bond["properties"]),
        settings=ethtool_settings(master["other_config"]),
    )


def _bridge(rows: NetworkRows, network: Record, pif: Record, *, leads_out: bool) -> BridgeSpec:
    config = network["other_config"]
    return BridgeSpec(
        name=network["bridge"],
        mtu=mtu_of(pif["other_config"]) or mtu_of(config) or network["MTU"],
        uplink=pif["device"],
        tag=pif["VLAN"],
        addresses=_addresses(network, pif, leads_out=leads_out),
        settings=ethtool_settings(config),
    )


def _addresses(network: Record, pif: Record, *, leads_out: bool) -> AddressSpec:
    mode, mode6 = AddressMode(pif["ip_configuration_mode"]), Ipv6Mode(pif["ipv6_configuration_mode"])
    static, static6 = mode is AddressMode.STATIC, mode6 is Ipv6Mode.STATIC
    config = {**network["other_config"], **pif["other_config"]}
    configured = mode is not AddressMode.NONE or mode6 is not Ipv6Mode.NONE
    servers = tuple(server for server in pif["DNS"].split(",") if server)
    peerdns = config.get("peerdns", "")
    return AddressSpec(
        mode=mode,
        address=f"{pif['IP']}/{prefix_length(pif['netmask'])}" if static else "",
        gateway=pif["gateway"] if static and leads_out else "",
        dns=servers if leads_out and (static or static6) else (),
        domain=domain_of(config) if configured else "",
        ipv6_mode=mode6,
        ipv6_addresses=pif["IPv6"] if static6 else (),
        ipv6_gateway=pif["ipv6_gateway"] if static6 and leads_out else "",
        routes=routes_of(network["other_config"]) if configured else (),
        accept_dns=is_on(peerdns) if peerdns else leads_out,
        accept_gateway=leads_out,
    )


def prefix_length(netmask: str) -> int:
    """Of a dotted netmask that was checked when it was stored."""
    return IPv4Network(f"0.0.0.0/{netmask}").prefixlen
