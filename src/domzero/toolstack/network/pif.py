"""PIFs: the host's network interfaces, and what stands on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.host.network.protocol import InterfaceInfo, NetworkError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network import vlan
from domzero.toolstack.network.interfaces import create_pif, introduce_interfaces, physical_pifs, refresh_interfaces
from domzero.toolstack.network.pif_rules import (
    assert_here,
    assert_managed,
    assert_not_management,
    assert_unpluggable,
    configuring,
    plugged_names,
)
from domzero.toolstack.network.probation import assert_no_probation
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.macs import normalise_mac

PROPERTIES = {"gro": ("on", "off")}
"""What `PIF.set_property` can change, and to what."""


@implements("PIF.scan")
async def scan(stack: Stack, context: Context, host: Ref) -> None:
    """Make PIFs, not plugged, for the interfaces of the host that have none. Raises INTERNAL_ERROR."""
    stack.database.row("host", host)
    try:
        await introduce_interfaces(stack, plugged=False)
        await refresh_interfaces(stack)
    except NetworkError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error


@implements("PIF.introduce")
async def introduce(stack: Stack, context: Context, host: Ref, MAC: str, device: str, managed: bool) -> Ref:
    """A PIF for one interface, found by device, hardware address, or both.

    Raises MAC_INVALID, DUPLICATE_PIF_DEVICE_NAME,
    COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS.
    """
    stack.database.row("host", host)
    mac = normalise_mac(MAC) if MAC.strip() else ""
    if mac is None:
        raise ApiError("MAC_INVALID", MAC)
    if device in physical_pifs(stack):
        raise ApiError("DUPLICATE_PIF_DEVICE_NAME", device)
    try:
        found = [known for known in await stack.network.interfaces() if _is_meant(known, device, mac)]
    except NetworkError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error
    if not found:
        raise ApiError("COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS", device, MAC)
    if found[0].name in physical_pifs(stack):
        raise ApiError("DUPLICATE_PIF_DEVICE_NAME", found[0].name)
    with stack.database.transaction() as transaction:
        return create_pif(stack, transaction, found[0], managed=managed, plugged=False)


def _is_meant(interface: InterfaceInfo, device: str, mac: str) -> bool:
    by_name, by_mac = device in ("", interface.name), mac in ("", interface.mac.lower())
    return bool(device or mac) and by_name and by_mac


@implements("PIF.forget")
async def forget(stack: Stack, context: Context, self: Ref) -> None:
    """Unplug the interface and remove its PIF; `PIF.scan` brings it back.

    Raises PIF_IS_VLAN, PIF_IS_NOT_PHYSICAL, PIF_VLAN_STILL_EXISTS, PIF_ALREADY_BONDED, PIF_TUNNEL_STILL_EXISTS and
    what stands in the way of unplugging.
    """
    async with stack.networking.lock:
        assert_no_probation(stack)
        assert_forgettable(stack, self)
        with configuring(self):
            await stack.networking.reshape(lambda transaction: remove_pif(stack, transaction, self))


def assert_forgettable(stack: Stack, pif: Ref) -> None:
    """Raises what `forget` does."""
    record = stack.database.record("PIF", pif)
    if record["VLAN_master_of"] != NULL_REF:
        raise ApiError("PIF_IS_VLAN", pif)
    if record["bond_master_of"] or not record["physical"]:
        raise ApiError("PIF_IS_NOT_PHYSICAL", pif)
    if record["bond_slave_of"] != NULL_REF:
        raise ApiError("PIF_ALREADY_BONDED", pif)
    if record["VLAN_slave_of"]:
        raise ApiError("PIF_VLAN_STILL_EXISTS", pif)
    if record["tunnel_access_PIF_of"] or record["tunnel_transport_PIF_of"]:
        raise ApiError("PIF_TUNNEL_STILL_EXISTS", pif)
    if record["managed"] and record["currently_attached"]:
        assert_unpluggable(stack, pif)
    else:
        assert_not_management(stack, pif)


def remove_pif(stack: Stack, transaction: Transaction, pif: Ref) -> None:
    """Remove a PIF's row, and that of its figures where nobody else shows them."""
    database = stack.database
    metrics = database.get("PIF", pif, "metrics")
    transaction.destroy("PIF", pif)
    shared = any(row.record["metrics"] == metrics for row in database.rows("PIF").values())
    if not shared and database.find("PIF_metrics", metrics) is not None:
        transaction.destroy("PIF_metrics", metrics)


@implements("PIF.plug")
async def plug(stack: Stack, context: Context, self: Ref) -> None:
    """Bring the interface and its bridge up; on one that is up, settings changed since take effect.

    Raises CANNOT_PLUG_BOND_SLAVE, PIF_UNMANAGED, PIF_CONFIGURATION_ERROR.
    """
    async with stack.networking.lock:
        await plug_locked(stack, self)


async def plug_locked(stack: Stack, pif: Ref) -> None:
    """As `plug`, for whoever holds the lock."""
    assert_no_probation(stack)
    assert_here(stack, pif)
    if stack.database.get("PIF", pif, "bond_slave_of") != NULL_REF:
        raise ApiError("CANNOT_PLUG_BOND_SLAVE", pif)
    assert_managed(stack, pif)
    with configuring(pif):
        await stack.networking.reshape(
            lambda transaction: transaction.update("PIF", pif, currently_attached=True), plugged_names(stack, pif)
        )


@implements("PIF.unplug")
async def unplug(stack: Stack, context: Context, self: Ref) -> None:
    """Take the interface's bridge down; one that is down already is left alone.

    Raises PIF_UNMANAGED, PIF_IS_MANAGEMENT_INTERFACE, PIF_DOES_NOT_ALLOW_UNPLUG, VIF_IN_USE, PIF_CONFIGURATION_ERROR.
    """
    async with stack.networking.lock:
        assert_no_probation(stack)
        assert_here(stack, self)
        assert_managed(stack, self)
        assert_unpluggable(stack, self)
        with configuring(self):
            await stack.networking.reshape(
                lambda transaction: transaction.update("PIF", self, currently_attached=False)
            )


@implements("PIF.set_disallow_unplug")
def set_disallow_unplug(stack: Stack, context: Context, self: Ref, value: bool) -> None:
    """Protect the interface from being unplugged, or no longer."""
    with stack.database.transaction() as transaction:
        transaction.update("PIF", self, disallow_unplug=value)


@implements("PIF.set_property")
async def set_property(stack: Stack, context: Context, self: Ref, name: str, value: str) -> None:
    """Change a property of the hardware, at once where the interface is up.

    Raises INVALID_VALUE, PIF_UNMANAGED, PIF_CONFIGURATION_ERROR; CANNOT_CHANGE_PIF_PROPERTIES for VLANs, and for
    members of bonds, which follow their bond.
    """
    async with stack.networking.lock:
        record = stack.database.record("PIF", self)
        if record["VLAN_master_of"] != NULL_REF or record["bond_slave_of"] != NULL_REF:
            raise ApiError("CANNOT_CHANGE_PIF_PROPERTIES", self)
        if value not in PROPERTIES.get(name, ()):
            raise ApiError("INVALID_VALUE", name, value)
        assert_no_probation(stack)
        assert_managed(stack, self)
        properties = {**record["properties"], name: value}
        devices = {
            stack.database.get("PIF", slave, "device")
            for bond in record["bond_master_of"]
            for slave in stack.database.get("Bond", bond, "slaves")
        }
        with configuring(self):
            await stack.networking.reshape(
                lambda transaction: transaction.update("PIF", self, properties=properties),
                devices or {record["device"]},
            )


@implements("PIF.db_introduce")
def db_introduce(stack: Stack, context: Context, device: str, network: Ref, host: Ref, MAC: str, MTU: int,
                 VLAN: int, physical: bool, ip_configuration_mode: str, IP: str, netmask: str, gateway: str,
                 DNS: str, bond_slave_of: Ref, VLAN_master_of: Ref, management: bool,
                 other_config: Mapping[str, str], disallow_unplug: bool, ipv6_configuration_mode: str,
                 IPv6: tuple[str, ...], ipv6_gateway: str, primary_address_type: str, managed: bool,
                 properties: Mapping[str, str]) -> Ref:  # fmt: skip
    """A PIF's record alone, for repairs: neither checked against the host nor plugged."""
    stack.database.row("network", network)
    stack.database.row("host", host)
    fields: dict[str, Any] = {
        "device": device, "network": network, "host": host, "MAC": MAC, "MTU": MTU, "VLAN": VLAN,
        "physical": physical, "ip_configuration_mode": ip_configuration_mode, "IP": IP, "netmask": netmask,
        "gateway": gateway, "DNS": DNS, "bond_slave_of": bond_slave_of, "VLAN_master_of": VLAN_master_of,
        "management": management, "other_config": other_config, "disallow_unplug": disallow_unplug,
        "ipv6_configuration_mode": ipv6_configuration_mode, "IPv6": IPv6, "ipv6_gateway": ipv6_gateway,
        "primary_address_type": primary_address_type, "managed": managed, "properties": properties,
        "currently_attached": False,
    }  # fmt: skip
    with stack.database.transaction() as transaction:
        return transaction.create("PIF", {**fields, "metrics": transaction.create("PIF_metrics", {})})


@implements("PIF.db_forget")
def db_forget(stack: Stack, context: Context, self: Ref) -> None:
    """Remove a PIF's record alone, for repairs; the host is not touched before the next change of its network."""
    with stack.database.transaction() as transaction:
        remove_pif(stack, transaction, self)


@implements("PIF.create_VLAN")
async def create_VLAN(stack: Stack, context: Context, device: str, network: Ref, host: Ref, VLAN: int) -> Ref:
    """As `VLAN.create` on the interface of that name; gives the untagged PIF. Raises PIF_DEVICE_NOT_FOUND."""
    stack.database.row("host", host)
    created = await vlan.create(stack, context, vlan.carrier(stack, device, host), VLAN, network)
    return str(stack.database.get("VLAN", created, "untagged_PIF"))


@implements("PIF.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """As `VLAN.destroy` on the PIF's VLAN. Raises PIF_IS_PHYSICAL."""
    record = stack.database.record("PIF", self)
    if record["VLAN_master_of"] == NULL_REF:
        if record["bond_master_of"]:
            raise ApiError("OPERATION_NOT_ALLOWED", "The interface is a bond; use Bond.destroy.")
        raise ApiError("PIF_IS_PHYSICAL", self)
    await vlan.destroy(stack, context, record["VLAN_master_of"])
