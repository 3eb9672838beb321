"""Bonds: several of the host's interfaces that act as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.bond_rows import bond_rows, cards_of, dissolve_rows, has_address, primary_of
from domzero.toolstack.network.cards import rejoin_cards
from domzero.toolstack.network.interfaces import refresh_interfaces_if_possible
from domzero.toolstack.network.network_keys import BOND_MODES, check_bond_property, properties_for
from domzero.toolstack.network.pif_rules import (
    assert_here,
    assert_managed,
    assert_unconnected,
    configuring,
    plugged_names,
)
from domzero.toolstack.network.probation import assert_no_probation, reshape_on_probation
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.macs import normalise_mac

Result = TypeVar("Result")


@implements("Bond.create")
async def create(stack: Stack, context: Context, network: Ref, members: tuple[Ref, ...], MAC: str, mode: str,
                 properties: Mapping[str, str]) -> Ref:  # fmt: skip
    """Bond interfaces; addresses, management and VLANs of the members move to the bond, and so do cards of machines.

    A bond of the management interface is on probation. Raises PIF_BOND_NEEDS_MORE_MEMBERS, PIF_CANNOT_BOND_CROSS_HOST,
    PIF_IS_VLAN, PIF_IS_NOT_PHYSICAL, PIF_ALREADY_BONDED, PIF_UNMANAGED, PIF_BOND_MORE_THAN_ONE_IP, PIF_VLAN_EXISTS,
    INCOMPATIBLE_PIF_PROPERTIES, NETWORK_ALREADY_CONNECTED, MAC_INVALID, INVALID_VALUE,
    PIF_CONFIGURATION_ERROR.
    """
    members = tuple(dict.fromkeys(members))
    mac = normalise_mac(MAC) if MAC.strip() else ""
    if mac is None:
        raise ApiError("MAC_INVALID", MAC)
    for name, value in properties.items():
        check_bond_property(mode, name, value)
    async with stack.networking.lock:
        assert_no_probation(stack)
        _assert_bondable(stack, members)
        assert_unconnected(stack, network)
        primary = primary_of(stack, members)
        rows = bond_rows(stack, network, members, primary, mac, mode, properties_for(mode, properties))
        cards = [vif for pif in members for vif in cards_of(stack, pif)]
        with configuring(primary):
            bond = await _reshape(stack, members, rows)
    await rejoin_cards(stack, cards)
    await refresh_interfaces_if_possible(stack)
    return bond


def _assert_bondable(stack: Stack, members: tuple[Ref, ...]) -> None:
    if not members:
        raise ApiError("PIF_BOND_NEEDS_MORE_MEMBERS")
    records = {pif: stack.database.record("PIF", pif) for pif in members}
    if len({record["host"] for record in records.values()}) > 1:
        raise ApiError("PIF_CANNOT_BOND_CROSS_HOST")
    for pif, record in records.items():
        assert_here(stack, pif)
        if record["VLAN_master_of"] != NULL_REF:
            raise ApiError("PIF_IS_VLAN", pif)
        if not record["physical"]:
            raise ApiError("PIF_IS_NOT_PHYSICAL", pif)
        if record["bond_slave_of"] != NULL_REF:
            raise ApiError("PIF_ALREADY_BONDED", pif)
        assert_managed(stack, pif)
    if sum(1 for record in records.values() if has_address(record)) > 1:
        raise ApiError("PIF_BOND_MORE_THAN_ONE_IP")
    if any(record["properties"] != records[members[0]]["properties"] for record in records.values()):
        raise ApiError("INCOMPATIBLE_PIF_PROPERTIES")
    _assert_distinct_tags(stack, members)


def _assert_distinct_tags(stack: Stack, members: tuple[Ref, ...]) -> None:
    """The VLANs move to the bond, where each tag can be but once."""
    tags: set[int] = set()
    for pif in members:
        for vlan in stack.database.get("PIF", pif, "VLAN_slave_of"):
            tag = stack.database.get("VLAN", vlan, "tag")
            if tag in tags:
                raise ApiError("PIF_VLAN_EXISTS", pif)
            tags.add(tag)


@implements("Bond.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Dissolve a bond; addresses, management, VLANs and cards of machines go to the primary member.

    That of the management interface is on probation. Raises PIF_CONFIGURATION_ERROR.
    """
    async with stack.networking.lock:
        assert_no_probation(stack)
        record = stack.database.record("Bond", self)
        assert_here(stack, record["master"])
        cards = cards_of(stack, record["master"])
        with configuring(record["master"]):
            await _reshape(stack, (record["master"],), dissolve_rows(stack, self))
    await rejoin_cards(stack, cards)
    await refresh_interfaces_if_possible(stack)


async def _reshape(stack: Stack, pifs: tuple[Ref, ...], change: Callable[[Transaction], Result]) -> Result:
    """On probation where one of the PIFs, or a VLAN on it, is the management interface."""
    database = stack.database
    above = [
        database.get("VLAN", vlan, "untagged_PIF") for pif in pifs for vlan in database.get("PIF", pif, "VLAN_slave_of")
    ]
    if any(database.get("PIF", pif, "management") for pif in (*pifs, *above)):
        return await reshape_on_probation(stack, change)
    return await stack.networking.reshape(change)


@implements("Bond.set_mode")
async def set_mode(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Share the traffic in another way, at once. Raises PIF_UNMANAGED, PIF_CONFIGURATION_ERROR."""
    record = stack.database.record("Bond", self)
    if value not in BOND_MODES:
        raise ApiError("INVALID_VALUE", "value", value)
    await _set(stack, self, record["master"], mode=value, properties=properties_for(value, record["properties"]))


@implements("Bond.set_property")
async def set_property(stack: Stack, context: Context, self: Ref, name: str, value: str) -> None:
    """Change a property, at once. Raises INVALID_VALUE, PIF_UNMANAGED, PIF_CONFIGURATION_ERROR."""
    record = stack.database.record("Bond", self)
    check_bond_property(record["mode"], name, value)
    await _set(stack, self, record["master"], properties={**record["properties"], name: value})


async def _set(stack: Stack, bond: Ref, master: Ref, **fields: object) -> None:
    async with stack.networking.lock:
        assert_no_probation(stack)
        assert_here(stack, master)
        assert_managed(stack, master)
        names = plugged_names(stack, master)

        def change(transaction: Transaction) -> None:
            transaction.update("Bond", bond, **fields)

        with configuring(master):
            if stack.database.get("PIF", master, "management"):
                await reshape_on_probation(stack, change, names)
            else:
                await stack.networking.reshape(change, names)
