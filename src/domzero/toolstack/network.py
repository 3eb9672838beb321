"""Networks: what cards of machines are joined by. A bridge is made when the first card needs it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack

DEFAULT_MTU = 1500
RESERVED_BRIDGE = re.compile(r"(xen|xapi|vif|tap|eth)")
BRIDGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
"""What Linux takes as an interface name (15 characters) and nobody has to quote."""


@implements("network.create")
def create(stack: Stack, context: Context, args: Mapping[str, Any]) -> Ref:
    """A new network; a blank bridge gets the next free `xapiN`, an MTU that is no size the default one.

    Raises INVALID_VALUE for a bridge name that Linux or XenServer's rules refuse, BRIDGE_NAME_EXISTS for a taken one.
    """
    taken = {row.record["bridge"] for row in stack.database.rows("network").values()}
    bridge = args["bridge"] or free_bridge(taken)
    if args["bridge"]:
        check_bridge(bridge, taken)
    fields = {**args, "bridge": bridge, "MTU": args["MTU"] if args["MTU"] > 0 else DEFAULT_MTU}
    with stack.database.transaction() as transaction:
        return transaction.create("network", fields)


@implements("network.destroy")
def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Remove a network that nothing is connected to, else NETWORK_CONTAINS_PIF or NETWORK_CONTAINS_VIF."""
    record = stack.database.record("network", self)
    if record["PIFs"]:
        raise ApiError("NETWORK_CONTAINS_PIF", ", ".join(record["PIFs"]))
    if record["VIFs"]:
        raise ApiError("NETWORK_CONTAINS_VIF", ", ".join(record["VIFs"]))
    with stack.database.transaction() as transaction:
        transaction.destroy("network", self)


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
    """XenServer's name for the bridge of a physical interface: `xenbr0` for eth0, `br` and the name for others."""
    match = re.fullmatch(r"eth(\d+)", interface)
    return f"xenbr{match[1]}" if match else f"br{interface}"[:15]


def by_bridge(database: Database, bridge: str) -> Ref | None:
    """The network with this bridge."""
    return next((ref for ref, row in database.rows("network").items() if row.record["bridge"] == bridge), None)
