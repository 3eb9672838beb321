"""Keeps the PIF rows true to the host's own network interfaces.

An interface that domzero found gets a PIF and a network named after it. Nothing is done to the interface itself: a
machine that merely has domzero installed must not lose its connection.
"""

from __future__ import annotations

import logging
from ipaddress import ip_interface
from typing import Any

from domzero.engine.clock import moment
from domzero.engine.transactions import Transaction
from domzero.host.network.protocol import InterfaceInfo, NetworkError
from domzero.idl.types import Ref
from domzero.toolstack.network import bridge_for_interface, by_bridge
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)


async def refresh_interfaces_if_possible(stack: Stack) -> None:
    """As `refresh_interfaces`; what keeps the interfaces from being read is logged, and tried again by the caller."""
    try:
        await refresh_interfaces(stack)
    except (NetworkError, OSError) as error:
        log.warning("the host's network interfaces could not be read: %s", error)


async def refresh_interfaces(stack: Stack) -> None:
    """Make PIFs for interfaces without one and bring all that is measured up to date; PIFs are never removed.

    Raises `NetworkError` when the host's interfaces cannot be read.
    """
    interfaces = await stack.network.interfaces()
    known = {row.record["device"]: ref for ref, row in stack.database.rows("PIF").items() if row.record["physical"]}
    with stack.database.transaction(observed=True) as transaction:
        for interface in interfaces:
            pif = known.pop(interface.name, None) or _create(stack, transaction, interface)
            _update(stack, transaction, pif, interface)
        for gone in known.values():
            transaction.update("PIF_metrics", stack.database.get("PIF", gone, "metrics"), carrier=False)


def _create(stack: Stack, transaction: Transaction, interface: InterfaceInfo) -> Ref:
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
    return transaction.create(
        "PIF",
        {
            "device": interface.name,
            "network": network,
            "host": stack.host,
            "MAC": interface.mac,
            "MTU": interface.mtu,
            "VLAN": -1,
            "physical": True,
            "metrics": transaction.create("PIF_metrics", {}),
        },
    )


def _update(stack: Stack, transaction: Transaction, pif: Ref, interface: InterfaceInfo) -> None:
    transaction.update("PIF", pif, MAC=interface.mac, **address_fields(interface, stack.settings.address))
    transaction.update(
        "PIF_metrics",
        stack.database.get("PIF", pif, "metrics"),
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

    The host manages its interfaces itself, so an interface with an address is shown as `Static`.
    """
    addresses = [ip_interface(text) for text in interface.addresses]
    first = next((address for address in addresses if address.version == 4), None)
    management = any(str(address.ip) == management_address for address in addresses)
    return {
        "currently_attached": interface.carrier,
        "ip_configuration_mode": "Static" if first else "None",
        "IP": str(first.ip) if first else "",
        "netmask": str(first.netmask) if first else "",
        "gateway": interface.gateway if first else "",
        "DNS": ",".join(interface.dns) if first else "",
        "IPv6": tuple(str(address) for address in addresses if address.version == 6),
        "management": management,
        "disallow_unplug": management,
    }
