"""The network that every host has from the start: machines on it get addresses and a way out without any set-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, ip_network

from domzero.engine.transactions import Transaction
from domzero.idl.types import Ref
from domzero.toolstack.network.network import free_bridge
from domzero.toolstack.stack import Stack

PRIVATE = IPv4Network("172.16.0.0/12")
"""Where the subnet is chosen (RFC 1918): rarer in homes than 192.168/16, in companies than 10/8."""
SERVING = frozenset({"bridge", "openvswitch", "sim"})
"""The network backends that can give addresses; user-mode networking gives every machine one of its own."""


def free_subnet(taken: Iterable[str]) -> IPv4Network | None:
    """A /24 that overlaps none of these networks (addresses with prefix length); None when all do.

    Others choose from the low end of each block, so this begins in the middle.
    """
    used = [network for network in map(_network, taken) if network is not None]
    return next((subnet for subnet in _candidates() if not any(subnet.overlaps(other) for other in used)), None)


def _candidates() -> Iterator[IPv4Network]:
    for block in PRIVATE.subnets(new_prefix=16):
        subnets = list(block.subnets(new_prefix=24))
        yield from (*subnets[122:], *subnets[:122])


def _network(text: str) -> IPv4Network | None:
    network = ip_network(text, strict=False)
    # The default route covers everything and takes nothing.
    return network if isinstance(network, IPv4Network) and network.prefixlen else None


def server_keys(subnet: IPv4Network) -> dict[str, str]:
    """The other_config keys by which the host serves a network's machines; see `network_keys.dhcp_server`."""
    return {
        "dhcp": "true",
        "masquerade": "true",
        "ip_begin": str(subnet.network_address + 1),
        "ip_end": str(subnet.broadcast_address - 1),
        "netmask": str(subnet.netmask),
    }


async def ensure_internal_network(stack: Stack, *, first: bool) -> None:
    """Make the network at the first start of a host, and wherever there is no network at all."""
    if stack.database.refs("network") and not first:
        return
    keys: dict[str, str] = {}
    if stack.network.mode() in SERVING:
        addresses = [text for interface in await stack.network.interfaces() for text in interface.addresses]
        subnet = free_subnet([*addresses, *await stack.control.routes()])
        keys = {} if subnet is None else server_keys(subnet)
    with stack.database.transaction() as transaction:
        _create(stack, transaction, keys)


def _create(stack: Stack, transaction: Transaction, keys: dict[str, str]) -> Ref:
    bridges = {row.record["bridge"] for row in stack.database.rows("network").values()}
    served = ", gives them addresses and lets them out behind its own" if keys else ""
    return transaction.create(
        "network",
        {
            "name_label": "Host internal network",
            "name_description": f"Joins the machines of this host with each other{served}",
            "bridge": free_bridge(bridges) if bridges else "xenbr0",
            "other_config": keys,
        },
    )
