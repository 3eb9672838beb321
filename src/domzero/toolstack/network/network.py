"""Networks: what cards of machines are joined by. A bridge is made when the first card needs it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.blobs.blob import remove_blobs
from domzero.toolstack.network.network_keys import checked_mtu, is_on
from domzero.toolstack.presence import is_in_domain
from domzero.toolstack.stack import Stack

SYSTEM_NETWORK = "is_host_internal_management_network"
"""The other_config key of a network without which a host could not do its work."""
CONFLICTS = {"nbd": "insecure_nbd", "insecure_nbd": "nbd"}
RESERVED_BRIDGE = re.compile(r"(xen|xapi|vif|tap|eth)")
BRIDGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
"""What Linux takes as an interface name (15 characters) and nobody has to quote."""


@implements("network.create")
def create(stack: Stack, context: Context, args: Mapping[str, Any]) -> Ref:
    """A new network; a blank bridge gets the next free `xapiN`, an MTU that is no size the default one.

    Nothing is made on the host before the first card needs it. Raises INVALID_VALUE for a bridge name that Linux or
    XenServer's rules refuse and for an MTU that cannot be, BRIDGE_NAME_EXISTS for a taken name.
    """
    taken = {row.record["bridge"] for row in stack.database.rows("network").values()}
    bridge = args["bridge"] or free_bridge(taken)
    if args["bridge"]:
        check_bridge(bridge, taken)
    fields = {**args, "bridge": bridge, "MTU": checked_mtu(args["MTU"])}
    with stack.database.transaction() as transaction:
        return transaction.create("network", fields)


@implements("network.destroy")
def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Remove a network that nothing is connected to, else NETWORK_CONTAINS_PIF or NETWORK_CONTAINS_VIF.

    CANNOT_DESTROY_SYSTEM_NETWORK for one that is marked as the host's own.
    """
    record = stack.database.record("network", self)
    if is_on(record["other_config"].get(SYSTEM_NETWORK, "")):
        raise ApiError("CANNOT_DESTROY_SYSTEM_NETWORK", self)
    if record["PIFs"]:
        raise ApiError("NETWORK_CONTAINS_PIF", ", ".join(record["PIFs"]))
    if record["VIFs"]:
        raise ApiError("NETWORK_CONTAINS_VIF", ", ".join(record["VIFs"]))
    with stack.database.transaction() as transaction:
        remove_blobs(stack, transaction, record["blobs"])
        transaction.destroy("network", self)


@implements("network.set_default_locking_mode")
def set_default_locking_mode(stack: Stack, context: Context, network: Ref, value: str) -> None:
    """Choose what cards without a mode of their own may send. VIF_IN_USE while one of them is in a running machine."""
    for vif in stack.database.get("network", network, "VIFs"):
        by_default = stack.database.get("VIF", vif, "locking_mode") == "network_default"
        if by_default and is_in_domain(stack.database, "VIF", vif):
            raise ApiError("VIF_IN_USE", network, vif)
    with stack.database.transaction() as transaction:
        transaction.update("network", network, default_locking_mode=value)


@implements("network.set_MTU")
def set_mtu(stack: Stack, context: Context, self: Ref, value: int) -> None:
    """Choose the size of packets, from the next plug on; what is no size stands for the default. INVALID_VALUE."""
    with stack.database.transaction() as transaction:
        transaction.update("network", self, MTU=checked_mtu(value))


@implements("network.add_purpose")
def add_purpose(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Give the network a purpose. NETWORK_INCOMPATIBLE_PURPOSES while any network serves for NBD the other way."""
    purposes = stack.database.get("network", self, "purpose")
    conflicting = CONFLICTS.get(value, "")
    if any(conflicting in row.record["purpose"] for row in stack.database.rows("network").values()):
        raise ApiError("NETWORK_INCOMPATIBLE_PURPOSES", value, conflicting)
    if value not in purposes:
        with stack.database.transaction() as transaction:
            transaction.update("network", self, purpose=(*purposes, value))


@implements("network.remove_purpose")
def remove_purpose(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Take a purpose away; one that the network does not have is no error."""
    left = tuple(purpose for purpose in stack.database.get("network", self, "purpose") if purpose != value)
    with stack.database.transaction() as transaction:
        transaction.update("network", self, purpose=left)


def free_bridge(taken: Iterable[str]) -> str:
    """The first `xapiN` that no network has."""
    names = set(taken)
    number = 0
    while f"xapi{number}" in names:
        number += 1
    return f"xapi{number}"


def check_bridge(bridge: str, taken: Iterable[str]) -> None:
    """Raises INVALID_VALUE or BRIDGE_NAME_EXISTS when a client may not have this name."""
    if not BRIDGE_NAME.fullmatch(bridge) or RESERVED_BRIDGE.match(bridge):
        raise ApiError("INVALID_VALUE", "bridge", bridge)
    if bridge in taken:
        raise ApiError("BRIDGE_NAME_EXISTS", bridge)


def bridge_for_interface(interface: str) -> str:
    """XenServer's name for the bridge of a physical interface: `xenbr0` for eth0, `br` and the name for others.

    Where that would be too long for Linux, the name's middle gives way to four digits that tell it from others.
    """
    match = re.fullmatch(r"eth([0-9]{1,10})", interface)
    name = f"xenbr{match[1]}" if match else f"br{interface}"
    return name if len(name) <= 15 else f"{name[:8]}{zlib.crc32(interface.encode()) % 10_000:04}{name[-3:]}"


def by_bridge(database: Database, bridge: str) -> Ref | None:
    """The network with this bridge."""
    return next((ref for ref, row in database.rows("network").items() if row.record["bridge"] == bridge), None)
