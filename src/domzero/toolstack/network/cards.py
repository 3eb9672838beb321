"""Cards of machines and the host's network: joined, and told other rules while the machine runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.spec import NicSpec
from domzero.host.network.protocol import CardSpec, NetworkError
from domzero.idl.records import Record
from domzero.idl.types import Ref
from domzero.toolstack.network.card_rules import card_spec
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.specification import nic_spec

log = logging.getLogger(__name__)


async def connect_card(stack: Stack, vif: Ref, domid: int, network: Ref | None = None) -> NicSpec:
    """Join a card to its network, or another, brought up on this host first; gives what the machine plugs into.

    One that is joined already is moved. Raises HOST_CANNOT_ATTACH_NETWORK; INVALID_DEVICE.
    """
    record = stack.database.record("VIF", vif)
    target = network or record["network"]
    row = stack.database.find("network", target)
    spec = card_spec(record, row.record if row is not None else None, domid)
    try:
        if row is not None:
            await stack.networking.join(target, record["VM"])
        backend = await stack.network.connect(spec)
    except NetworkError as error:
        log.warning("card %d of %s cannot be connected: %s", spec.slot, record["VM"], error)
        raise ApiError("HOST_CANNOT_ATTACH_NETWORK", stack.host, target) from error
    return nic_spec(record, spec.mtu, backend)


async def rejoin_cards(stack: Stack, vifs: Iterable[Ref]) -> None:
    """Have the cards of running machines on the networks that their rows name, now that these have changed.

    The caller does not hold the network's lock. A card that cannot be moved stays where it is; the log tells.
    """
    for vif in vifs:
        row = stack.database.find("VIF", vif)
        if row is None or not row.record["currently_attached"]:
            continue
        try:
            async with stack.machines.running(row.record["VM"]) as domain:
                await connect_card(stack, vif, domain.domid)
        except ApiError as error:
            log.error("card %s did not follow to its network: %s", vif, ", ".join(error.description))


async def change_rules(stack: Stack, vif: Ref, change: Callable[[Record], Mapping[str, Any]]) -> None:
    """Change fields of a VIF that are rules of its card, of a running machine's at once.

    `change` gives the fields' new values, from the record as it is when the machine's turn has come: a machine that
    starts meanwhile would start with the old ones. Raises INTERNAL_ERROR when the host's network refuses; then nothing
    has changed.
    """
    async with stack.machines.turn(stack.database.get("VIF", vif, "VM")):
        record = stack.database.record("VIF", vif)
        fields = change(record)
        spec = _connected(stack, {**record, **fields})
        if spec is not None:
            try:
                await stack.network.configure(spec)
            except NetworkError as error:
                raise ApiError("INTERNAL_ERROR", f"The card's rules could not be changed: {error}") from error
        with stack.database.transaction() as transaction:
            transaction.update("VIF", vif, **fields)


def _connected(stack: Stack, vif: dict[str, Any]) -> CardSpec | None:
    """How the card of a running machine is to be connected."""
    domid = stack.database.get("VM", vif["VM"], "domid")
    if not vif["currently_attached"] or domid <= 0:
        return None
    row = stack.database.find("network", vif["network"])
    return card_spec(vif, row.record if row is not None else None, domid)
