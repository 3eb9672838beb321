"""Keeps the PIF rows true to the host's own network interfaces.

An interface that domzero found gets a PIF and a network named after it. Nothing is done to an interface that the
setting `manage-interfaces` does not name: its PIF shows it as the machine has it, with `managed` false. Of the others
the rows say what is to be, and only what others decide (a DHCP server, the cable) is written back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Interface, ip_interface
from typing import Any

from domzero.engine.clock import moment
from domzero.engine.transactions import Transaction
from domzero.host.network.protocol import DeviceState, InterfaceInfo, NetworkError
from domzero.idl.records import Record
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.alerts import BOND_STATUS_CHANGED, tell
from domzero.toolstack.network.host_address import follow_address, primary_address
from domzero.toolstack.network.network import bridge_for_interface, by_bridge
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

KEPT_UNMANAGED = "managed"
"""The other_config key that keeps a PIF unmanaged (`false`), whatever the setting says."""

CHANGEABLE = {"gro": "on"}
"""The properties of an interface, and what they are at first."""


async def refresh_interfaces_if_possible(stack: Stack) -> None:
    """As `refresh_interfaces`; what keeps the interfaces from being read is logged, and tried again by the caller."""
    try:
        await refresh_interfaces(stack)
    except (NetworkError, OSError) as error:
        log.warning("the host's network interfaces could not be read: %s", error)


async def refresh_interfaces(stack: Stack) -> None:
    """Bring all that is measured up to date. Raises `NetworkError` when the host's interfaces cannot be read."""
    interfaces = await stack.network.interfaces()
    stack.networking.present = frozenset(interface.name for interface in interfaces)
    devices = {state.name: state for state in await stack.network.devices()}
    known = physical_pifs(stack)
    with stack.database.transaction(observed=True) as transaction:
        for interface in interfaces:
            pif = known.pop(interface.name, None)
            if pif is not None:
                _update(stack, transaction, pif, interface)
        for gone in known.values():
            transaction.update("PIF_metrics", stack.database.get("PIF", gone, "metrics"), carrier=False)
        _observe_devices(stack, transaction, {interface.name: interface for interface in interfaces}, devices)
    follow_address(stack)


async def introduce_interfaces(stack: Stack, *, plugged: bool) -> None:
    """Make PIFs for interfaces without one; managed ones count as plugged if asked for. Raises `NetworkError`."""
    interfaces = await stack.network.interfaces()
    stack.networking.present = frozenset(interface.name for interface in interfaces)
    known = physical_pifs(stack)
    with stack.database.transaction() as transaction:
        for interface in interfaces:
            if interface.name not in known:
                create_pif(stack, transaction, interface, managed=True, plugged=plugged)


def physical_pifs(stack: Stack) -> dict[str, Ref]:
    """Device → PIF, of this host's own interfaces."""
    rows = stack.database.rows("PIF").items()
    return {
        row.record["device"]: ref for ref, row in rows if row.record["physical"] and row.record["host"] == stack.host
    }


def may_manage(stack: Stack, device: str) -> bool:
    """Whether the operator lets domzero configure this interface."""
    allowed = stack.settings.manage_interfaces
    return allowed is None or device in allowed


def create_pif(
    stack: Stack, transaction: Transaction, interface: InterfaceInfo, *, managed: bool, plugged: bool
) -> Ref:
    """The PIF of an interface, on the network named after it, which is made where there is none."""
    bridge = bridge_for_interface(interface.name)
    network = by_bridge(stack.database, bridge) or transaction.create(
        "network",
        {
            "name_label": f"Pool-wide network associated with {interface.name}",
            "name_description": f"Reaches whatever {interface.name} of the hosts is connected to",
            "bridge": bridge,
            "MTU": interface.mtu,
        },
    )
    managed_here = managed and may_manage(stack, interface.name)
    pif = transaction.create(
        "PIF",
        {
            "device": interface.name,
            "network": network,
            "host": stack.host,
            "MAC": interface.mac,
            "MTU": interface.mtu,
            "VLAN": -1,
            "physical": True,
            "managed": managed_here,
            "properties": CHANGEABLE,
            "other_config": {} if managed else {KEPT_UNMANAGED: "false"},
            "metrics": transaction.create("PIF_metrics", {}),
            **_found_fields(interface, _management_address(stack)),
        },
    )
    if managed_here:
        transaction.update("PIF", pif, currently_attached=plugged, **adopted_ipv6(interface))
    _update_metrics(stack, transaction, pif, interface)
    return pif


def settle_management(stack: Stack) -> None:
    """Make `managed` of the host's PIFs what the settings say, at a start.

    An interface that domzero is let have from now on keeps the addresses that it has; one that it has to let go is as
    the machine has it.
    """
    with stack.database.transaction() as transaction:
        for device, pif in physical_pifs(stack).items():
            record = stack.database.record("PIF", pif)
            managed = may_manage(stack, device) and record["other_config"].get(KEPT_UNMANAGED) != "false"
            if managed != record["managed"]:
                attached = managed or record["currently_attached"]
                transaction.update("PIF", pif, managed=managed, currently_attached=attached)
                log.info("the interface %s is %s from now on", device, "managed" if managed else "left alone")


def _update(stack: Stack, transaction: Transaction, pif: Ref, interface: InterfaceInfo) -> None:
    record = stack.database.record("PIF", pif)
    if not record["managed"]:
        fields = address_fields(interface, _management_address(stack))
        if record["management"] or _managed_management(stack):
            # Where management is was decided by a call, or has been found already.
            fields["management"] = record["management"] and fields["management"]
        if record["management"] == fields["management"]:
            del fields["disallow_unplug"]
        transaction.update("PIF", pif, MAC=interface.mac, **fields)
    elif record["bond_slave_of"] == NULL_REF:
        # The member of a bond may bear the bond's address.
        transaction.update("PIF", pif, MAC=interface.mac)
    _update_metrics(stack, transaction, pif, interface)


def _management_address(stack: Stack) -> str:
    """The address that makes an interface the one of management; empty where none is to be that."""
    return "" if stack.networking.management_disabled else str(stack.database.get("host", stack.host, "address"))


def appoint_management(stack: Stack, interfaces: Iterable[InterfaceInfo]) -> None:
    """At a start, before the host follows its rows: where no interface carries management, the one that domzero looks
    after and that has the host's address does from now on, be it by its row or else by a lease.

    So a host that was reached by loopback only has one when it listens for others.
    """
    address = _management_address(stack)
    own = {ref: row.record for ref, row in stack.database.rows("PIF").items() if row.record["host"] == stack.host}
    if not address or any(pif["management"] for pif in own.values()):
        return
    up = {
        ref: pif for ref, pif in own.items()
        if pif["managed"] and pif["currently_attached"] and pif["bond_slave_of"] == NULL_REF
    }  # fmt: skip
    chosen = next((ref for ref, pif in up.items() if primary_address(pif) == address), None)
    fields: dict[str, Any] = {"management": True, "disallow_unplug": True}
    for found in interfaces:
        pif = physical_pifs(stack).get(found.name)
        if chosen is None and found.leased and pif in up and _found_fields(found, address)["management"]:
            chosen = pif
            fields = {**_found_fields(found, address), **adopted_ipv6(found), "currently_attached": True}
    if chosen is not None:
        with stack.database.transaction() as transaction:
            transaction.update("PIF", chosen, **fields)


def _managed_management(stack: Stack) -> bool:
    rows = stack.database.rows("PIF").values()
    return any(row.record["management"] and row.record["managed"] for row in rows)


def _update_metrics(stack: Stack, transaction: Transaction, pif: Ref, interface: InterfaceInfo) -> None:
    metrics = stack.database.get("PIF", pif, "metrics")
    transaction.update(
        "PIF_metrics",
        metrics,
        carrier=interface.carrier,
        speed=interface.speed,
        duplex=interface.duplex,
        vendor_id=interface.vendor_id,
        vendor_name=interface.vendor_name,
        device_id=interface.device_id,
        device_name=interface.device_name,
        pci_bus_path=interface.pci_bus_path,
        last_updated=moment(stack.clock.now()),
    )


def address_fields(interface: InterfaceInfo, management_address: str) -> dict[str, Any]:
    """The PIF's address fields as the host's own configuration has them.

    The host manages its interfaces itself, so an interface with an address is shown as `Static` unless the backend
    knows that a DHCP server gave it.
    """
    addresses = [ip_interface(text) for text in interface.addresses]
    first = next((address for address in addresses if address.version == 4), None)
    management = any(str(address.ip) == management_address for address in addresses)
    return {
        "currently_attached": interface.carrier,
        "ip_configuration_mode": ("DHCP" if interface.leased else "Static") if first else "None",
        "IP": str(first.ip) if first else "",
        "netmask": str(first.netmask) if first else "",
        "gateway": interface.gateway if first else "",
        "DNS": ",".join(interface.dns) if first else "",
        "IPv6": tuple(str(address) for address in addresses if address.version == 6),
        "management": management,
        "disallow_unplug": management,
    }


def _found_fields(interface: InterfaceInfo, management_address: str) -> dict[str, Any]:
    """The address fields of a PIF that is made now; where management is by IPv6, that kind of address counts."""
    fields = address_fields(interface, management_address)
    by_ipv6 = fields["management"] and ":" in management_address
    return {**fields, "primary_address_type": "IPv6" if by_ipv6 else "IPv4"}


def adopted_ipv6(interface: InterfaceInfo) -> dict[str, Any]:
    """How an interface that domzero takes over keeps its IPv6 addresses: as it seems to have got them."""
    found = [ip_interface(text) for text in interface.addresses]
    lasting = [address for address in found if isinstance(address, IPv6Interface) and not address.is_link_local]
    if not lasting:
        return {"IPv6": (), "ipv6_configuration_mode": "None"}
    texts = tuple(str(address) for address in lasting)
    if interface.leased:
        return {"IPv6": texts, "ipv6_configuration_mode": "DHCP"}
    # The lower half of an address that the interface gave itself has ff:fe in its middle (RFC 4291, appendix A).
    formed = any(int(address.ip) >> 24 & 0xFFFF == 0xFFFE for address in lasting)
    return {"IPv6": texts, "ipv6_configuration_mode": "Autoconf" if formed else "Static"}


def _observe_devices(
    stack: Stack,
    transaction: Transaction,
    interfaces: Mapping[str, InterfaceInfo],
    devices: Mapping[str, DeviceState],
) -> None:
    """What has become of the PIFs that domzero looks after: addresses that others gave, links of bonds."""
    database = stack.database
    for ref, row in database.rows("PIF").items():
        pif = row.record
        if pif["host"] != stack.host or not pif["managed"]:
            continue
        network = database.find("network", pif["network"])
        state = devices.get(network.record["bridge"]) if network and pif["currently_attached"] else None
        transaction.update("PIF", ref, **given_addresses(pif, state))
        if pif["bond_master_of"]:
            _observe_bond(stack, transaction, ref, interfaces, devices.get(pif["device"]))


def given_addresses(pif: Record, state: DeviceState | None) -> dict[str, Any]:
    """The address fields that are not the operator's but a DHCP server's or a router's."""
    fields: dict[str, Any] = {}
    addresses = [ip_interface(text) for text in state.addresses] if state is not None else []
    if pif["ip_configuration_mode"] == "DHCP":
        first = next((address for address in addresses if address.version == 4), None)
        fields |= {"IP": str(first.ip) if first else "", "netmask": str(first.netmask) if first else ""}
        fields |= {
            "gateway": state.gateway if state is not None and first else "",
            "DNS": ",".join(state.dns) if state is not None and first else "",
        }
    if pif["ipv6_configuration_mode"] in ("DHCP", "Autoconf"):
        fields["IPv6"] = tuple(str(address) for address in addresses if address.version == 6)
    return fields


def _observe_bond(
    stack: Stack,
    transaction: Transaction,
    master: Ref,
    interfaces: Mapping[str, InterfaceInfo],
    state: DeviceState | None,
) -> None:
    database = stack.database
    pif = database.record("PIF", master)
    bond = pif["bond_master_of"][0]
    members = [database.get("PIF", slave, "device") for slave in database.get("Bond", bond, "slaves")]
    up = sum(1 for member in members if member in interfaces and interfaces[member].carrier)
    if up != (before := database.get("Bond", bond, "links_up")):
        transaction.update("Bond", bond, links_up=up)
        name = "+".join(sorted(members))
        body = f"The status of the {name} bond changed: {up} of {len(members)} up (before: {before})"
        tell(stack, BOND_STATUS_CHANGED, "Host", database.get("host", stack.host, "uuid"), body)
    if database.find("PIF_metrics", pif["metrics"]) is not None:
        transaction.update(
            "PIF_metrics",
            pif["metrics"],
            carrier=up > 0 and (state is None or state.carrier),
            speed=0 if state is None else state.speed,
            duplex=any(interfaces[member].duplex for member in members if member in interfaces),
            last_updated=moment(stack.clock.now()),
        )
