"""What may be done to a PIF: checks that raise the documented errors, shared by PIF, VLAN, Bond and management."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from domzero.engine.errors import ApiError
from domzero.host.network.protocol import NetworkError
from domzero.idl.records import Record
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.presence import is_in_domain
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)


def assert_managed(stack: Stack, pif: Ref) -> None:
    """Raises PIF_UNMANAGED for an interface, or what stands on one, that the operator did not let domzero configure."""
    for device, managed in _bases(stack, pif):
        if not managed:
            log.warning("%s is left alone: the setting manage-interfaces does not name it", device)
            raise ApiError("PIF_UNMANAGED", pif)


def _bases(stack: Stack, pif: Ref) -> Iterator[tuple[str, bool]]:
    """Device and `managed` of the physical interfaces below a PIF."""
    database = stack.database
    record = database.record("PIF", pif)
    if record["VLAN_master_of"] != NULL_REF:
        yield from _bases(stack, database.get("VLAN", record["VLAN_master_of"], "tagged_PIF"))
    elif record["bond_master_of"]:
        for slave in database.get("Bond", record["bond_master_of"][0], "slaves"):
            yield from _bases(stack, slave)
    else:
        yield record["device"], record["managed"]


def assert_here(stack: Stack, pif: Ref) -> None:
    """Raises PIF_NOT_ATTACHED_TO_HOST for an interface of another host."""
    if stack.database.get("PIF", pif, "host") != stack.host:
        raise ApiError("PIF_NOT_ATTACHED_TO_HOST", pif, stack.host)


def assert_not_management(stack: Stack, pif: Ref) -> None:
    """Raises PIF_IS_MANAGEMENT_INTERFACE."""
    if stack.database.get("PIF", pif, "management"):
        raise ApiError("PIF_IS_MANAGEMENT_INTERFACE", pif)


def assert_unused(stack: Stack, pif: Ref) -> None:
    """Raises VIF_IN_USE when the card of a running machine is on the PIF's network."""
    network = stack.database.get("PIF", pif, "network")
    for vif in attached_cards(stack, network):
        raise ApiError("VIF_IN_USE", network, vif)


def attached_cards(stack: Stack, network: Ref) -> tuple[Ref, ...]:
    """The VIFs of running machines on a network."""
    row = stack.database.find("network", network)
    if row is None:
        return ()
    return tuple(vif for vif in row.record["VIFs"] if is_in_domain(stack.database, "VIF", vif))


def assert_unpluggable(stack: Stack, pif: Ref) -> None:
    """Raises PIF_IS_MANAGEMENT_INTERFACE, PIF_DOES_NOT_ALLOW_UNPLUG, VIF_IN_USE."""
    assert_not_management(stack, pif)
    if stack.database.get("PIF", pif, "disallow_unplug"):
        raise ApiError("PIF_DOES_NOT_ALLOW_UNPLUG", pif)
    assert_unused(stack, pif)


def assert_unconnected(stack: Stack, network: Ref) -> None:
    """Raises NETWORK_ALREADY_CONNECTED when this host has a PIF on the network, NETWORK_UNMANAGED for a network whose
    bridge others set up."""
    record = stack.database.record("network", network)
    if not record["managed"]:
        raise ApiError("NETWORK_UNMANAGED", network)
    for pif in record["PIFs"]:
        if stack.database.get("PIF", pif, "host") == stack.host:
            raise ApiError("NETWORK_ALREADY_CONNECTED", network, pif)


def plugged_names(stack: Stack, pif: Ref) -> set[str]:
    """The devices and the bridge whose settings take effect when the PIF is plugged."""
    record = stack.database.record("PIF", pif)
    names = {record["device"]}
    network = stack.database.find("network", record["network"])
    if network is not None:
        names.add(network.record["bridge"])
    for bond in bonds_at(stack, record):
        names |= {stack.database.get("PIF", slave, "device") for slave in stack.database.get("Bond", bond, "slaves")}
    return names


def bonds_at(stack: Stack, record: Record) -> tuple[Ref, ...]:
    """The bond that a PIF stands for, or that carries the VLAN which it stands for."""
    if record["VLAN_master_of"] != NULL_REF:
        below = stack.database.get("VLAN", record["VLAN_master_of"], "tagged_PIF")
        return tuple(stack.database.get("PIF", below, "bond_master_of"))
    return tuple(record["bond_master_of"])


@contextmanager
def configuring(pif: Ref) -> Iterator[None]:
    """What the host refuses becomes PIF_CONFIGURATION_ERROR with what it said."""
    try:
        yield
    except NetworkError as error:
        raise ApiError("PIF_CONFIGURATION_ERROR", pif, str(error)) from error
