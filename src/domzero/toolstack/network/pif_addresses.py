"""The addresses of the host's interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.addressing import name_servers, static_ipv4, static_ipv6
from domzero.toolstack.network.host_address import primary_address, settle_authority
from domzero.toolstack.network.interfaces import refresh_interfaces_if_possible
from domzero.toolstack.network.pif_rules import (
    assert_here,
    assert_managed,
    assert_not_management,
    configuring,
    plugged_names,
)
from domzero.toolstack.network.probation import assert_no_probation, reshape_on_probation
from domzero.toolstack.stack import Stack

NO_IPV4 = {"IP": "", "netmask": "", "gateway": "", "DNS": ""}


@implements("PIF.reconfigure_ip")
async def reconfigure_ip(
    stack: Stack, context: Context, self: Ref, mode: str, IP: str, netmask: str, gateway: str, DNS: str
) -> None:
    """Change how the host gets its IPv4 address there, at once where the interface is up.

    A change of the management interface is on probation. Raises INVALID_IP_ADDRESS_SPECIFIED, PIF_UNMANAGED,
    PIF_IS_MANAGEMENT_INTERFACE when it would be left without address, PIF_CONFIGURATION_ERROR.
    """
    if mode == "Static":
        fields = static_ipv4(IP, netmask, gateway, DNS)
    else:
        # What DHCP gives is filled in when it came.
        fields = {**NO_IPV4, "DNS": name_servers(DNS) if mode == "None" else ""}
    if mode == "None" and stack.database.get("PIF", self, "primary_address_type") == "IPv4":
        assert_not_management(stack, self)
    await _reconfigure(stack, self, {"ip_configuration_mode": mode, **fields})


@implements("PIF.reconfigure_ipv6")
async def reconfigure_ipv6(
    stack: Stack, context: Context, self: Ref, mode: str, IPv6: str, gateway: str, DNS: str
) -> None:
    """As `reconfigure_ip`, for IPv6; also raises INVALID_CIDR_ADDRESS_SPECIFIED."""
    fields: dict[str, Any] = {"IPv6": (), "ipv6_gateway": ""}
    if mode == "Static":
        fields = {**static_ipv6(IPv6, gateway), **({"DNS": name_servers(DNS)} if DNS else {})}
    if mode == "None" and stack.database.get("PIF", self, "primary_address_type") == "IPv6":
        assert_not_management(stack, self)
    await _reconfigure(stack, self, {"ipv6_configuration_mode": mode, **fields})


async def _reconfigure(stack: Stack, pif: Ref, fields: Mapping[str, Any]) -> None:
    async with stack.networking.lock:
        assert_no_probation(stack)
        assert_here(stack, pif)
        record = stack.database.record("PIF", pif)
        if record["bond_slave_of"] != NULL_REF:
            raise ApiError("PIF_CONFIGURATION_ERROR", pif, "A member of a bond has no addresses; its bond has.")
        assert_managed(stack, pif)

        def change(transaction: Transaction) -> None:
            transaction.update("PIF", pif, **fields)
            address = primary_address(stack.database.record("PIF", pif))
            if record["management"] and address:
                transaction.update("host", stack.host, address=address)

        reshape = reshape_on_probation if record["management"] else _at_once
        with configuring(pif):
            await reshape(stack, change, plugged_names(stack, pif))
        if record["management"]:
            settle_authority(stack)
    await refresh_interfaces_if_possible(stack)


async def _at_once(stack: Stack, change: Any, replugged: set[str]) -> None:
    await stack.networking.reshape(change, replugged)


@implements("PIF.set_primary_address_type")
def set_primary_address_type(stack: Stack, context: Context, self: Ref, primary_address_type: str) -> None:
    """Choose by which kind of address this interface would serve for management.

    Raises PIF_IS_MANAGEMENT_INTERFACE while it does, since the host's address would change under its callers.
    """
    if stack.database.get("PIF", self, "primary_address_type") == primary_address_type:
        return
    assert_not_management(stack, self)
    with stack.database.transaction() as transaction:
        transaction.update("PIF", self, primary_address_type=primary_address_type)
