"""Rows of figures: written when a figure moved, and brought to nothing where nothing is left to measure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from domzero.engine.clock import moment
from domzero.engine.transactions import Transaction
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

AT_REST: Mapping[str, Any] = {
    "memory_actual": 0,
    "VCPUs_number": 0,
    "VCPUs_utilisation": EMPTY_MAP,
    "VCPUs_CPU": EMPTY_MAP,
    "VCPUs_flags": EMPTY_MAP,
    "state": (),
}
"""VM_metrics of a machine that has no domain."""
ONLINE = ("online",)
STILL: Mapping[str, Any] = {"io_read_kbs": 0.0, "io_write_kbs": 0.0}
"""VBD_metrics and VIF_metrics of a device through which nothing can pass."""


def update_if_moved(stack: Stack, transaction: Transaction, cls: str, ref: Ref, figures: Mapping[str, Any]) -> None:
    """Write the figures, and when that was, unless the row says so already. A row that is gone is none to write."""
    if ref == NULL_REF or not figures:
        return
    row = stack.database.find(cls, ref)
    if row is None:
        log.debug("%s %s is gone", cls, ref)
    elif any(row.record[name] != value for name, value in figures.items()):
        transaction.update(cls, ref, last_updated=moment(stack.clock.now()), **figures)


def state_fields(processors: int, power_state: str) -> dict[str, Any]:
    """VM_metrics of a machine that has a domain: how many processors, and the words for what they and it do."""
    return {
        "VCPUs_number": processors,
        "VCPUs_flags": dict.fromkeys(range(processors), ONLINE),
        "state": (power_state.lower(),),
    }


def come_to_rest(stack: Stack, transaction: Transaction, vm: Ref) -> None:
    """The machine has no domain any more: it uses nothing, and nothing passes through its devices."""
    database = stack.database
    record = database.record("VM", vm)
    update_if_moved(stack, transaction, "VM_metrics", record["metrics"], AT_REST)
    for vbd in record["VBDs"]:
        device_at_rest(stack, transaction, "VBD", vbd)
    for vif in record["VIFs"]:
        device_at_rest(stack, transaction, "VIF", vif)


def device_at_rest(stack: Stack, transaction: Transaction, cls: str, device: Ref) -> None:
    """Nothing passes through the drive or card (`cls`) any more."""
    update_if_moved(stack, transaction, f"{cls}_metrics", stack.database.get(cls, device, "metrics"), STILL)
