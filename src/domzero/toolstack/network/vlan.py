"""VLANs: one tag of an interface's packets, as a network of its own."""

from __future__ import annotations

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.pif_rules import (
    assert_here,
    assert_managed,
    assert_unconnected,
    assert_unpluggable,
    configuring,
)
from domzero.toolstack.network.probation import assert_no_probation
from domzero.toolstack.stack import Stack

UNTAGGED_MAC = "fe:ff:ff:ff:ff:ff"
"""What the PIF of a VLAN shows, as on XenServer: the address that counts is the interface's below."""
LARGEST_TAG = 4094


@implements("VLAN.create")
async def create(stack: Stack, context: Context, tagged_PIF: Ref, tag: int, network: Ref) -> Ref:
    """The VLAN and its untagged PIF, plugged.

    Raises VLAN_TAG_INVALID, PIF_IS_VLAN, CANNOT_ADD_VLAN_TO_BOND_SLAVE, PIF_UNMANAGED, PIF_VLAN_EXISTS,
    NETWORK_ALREADY_CONNECTED, NETWORK_UNMANAGED, PIF_CONFIGURATION_ERROR.
    """
    async with stack.networking.lock:
        assert_no_probation(stack)
        _assert_creatable(stack, tagged_PIF, tag, network)
        with configuring(tagged_PIF):
            return await stack.networking.reshape(
                lambda transaction: _create_rows(stack, transaction, tagged_PIF, tag, network)
            )


def _assert_creatable(stack: Stack, tagged: Ref, tag: int, network: Ref) -> None:
    check_tag(tag)
    record = stack.database.record("PIF", tagged)
    assert_here(stack, tagged)
    if record["VLAN_master_of"] != NULL_REF:
        raise ApiError("PIF_IS_VLAN", tagged)
    if record["bond_slave_of"] != NULL_REF:
        raise ApiError("CANNOT_ADD_VLAN_TO_BOND_SLAVE", tagged)
    if record["tunnel_access_PIF_of"]:
        raise ApiError("IS_TUNNEL_ACCESS_PIF", tagged)
    if any(stack.database.get("VLAN", vlan, "tag") == tag for vlan in record["VLAN_slave_of"]):
        raise ApiError("PIF_VLAN_EXISTS", tagged)
    assert_unconnected(stack, network)
    assert_managed(stack, tagged)


def check_tag(tag: int) -> None:
    """Raises VLAN_TAG_INVALID."""
    if not 0 <= tag <= LARGEST_TAG:
        raise ApiError("VLAN_TAG_INVALID", str(tag))


def _create_rows(stack: Stack, transaction: Transaction, tagged: Ref, tag: int, network: Ref) -> Ref:
    below = stack.database.record("PIF", tagged)
    vlan = transaction.create("VLAN", {"tagged_PIF": tagged, "tag": tag})
    untagged = transaction.create(
        "PIF",
        {
            "device": below["device"],
            "network": network,
            "host": below["host"],
            "MAC": UNTAGGED_MAC,
            "MTU": below["MTU"],
            "VLAN": tag,
            "physical": False,
            "currently_attached": True,
            "VLAN_master_of": vlan,
            "metrics": below["metrics"],
        },
    )
    transaction.update("VLAN", vlan, untagged_PIF=untagged)
    return vlan


@implements("VLAN.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Remove the VLAN and its untagged PIF.

    Raises PIF_IS_MANAGEMENT_INTERFACE, PIF_DOES_NOT_ALLOW_UNPLUG, VIF_IN_USE, PIF_CONFIGURATION_ERROR.
    """
    async with stack.networking.lock:
        assert_no_probation(stack)
        untagged = stack.database.get("VLAN", self, "untagged_PIF")
        if stack.database.find("PIF", untagged) is not None:
            assert_here(stack, untagged)
            assert_unpluggable(stack, untagged)

        def remove(transaction: Transaction) -> None:
            transaction.destroy("VLAN", self)
            if stack.database.find("PIF", untagged) is not None:
                transaction.destroy("PIF", untagged)

        with configuring(untagged):
            await stack.networking.reshape(remove)


def carrier(stack: Stack, device: str, host: Ref) -> Ref:
    """The interface or bond of that name, no VLAN on it. Raises PIF_DEVICE_NOT_FOUND."""
    for ref, row in stack.database.rows("PIF").items():
        found = row.record
        if (found["device"], found["host"]) == (device, host) and found["VLAN_master_of"] == NULL_REF:
            return ref
    raise ApiError("PIF_DEVICE_NOT_FOUND")


@implements("pool.create_VLAN")
async def pool_create_VLAN(stack: Stack, context: Context, device: str, network: Ref, VLAN: int) -> tuple[Ref, ...]:
    """The VLAN on the interface of that name of every host; gives the untagged PIFs. Raises as `VLAN.create`."""
    check_tag(VLAN)
    carriers = [carrier(stack, device, host) for host in stack.database.refs("host")]
    created = [await create(stack, context, pif, VLAN, network) for pif in carriers]
    return tuple(stack.database.get("VLAN", vlan, "untagged_PIF") for vlan in created)


@implements("pool.create_VLAN_from_PIF")
async def pool_create_VLAN_from_PIF(
    stack: Stack, context: Context, pif: Ref, network: Ref, VLAN: int
) -> tuple[Ref, ...]:
    """As `pool.create_VLAN`, on the interfaces that are on the same network as the given one."""
    check_tag(VLAN)
    record = stack.database.record("PIF", pif)
    if record["VLAN_master_of"] != NULL_REF:
        raise ApiError("PIF_IS_VLAN", pif)
    carriers = stack.database.get("network", record["network"], "PIFs") or (pif,)
    created = [await create(stack, context, carrying, VLAN, network) for carrying in carriers]
    return tuple(stack.database.get("VLAN", vlan, "untagged_PIF") for vlan in created)
