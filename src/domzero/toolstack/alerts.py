"""Alerts: the messages that the host leaves by itself, under XenServer's names and with its priorities.

Priorities: 1 data are about to be lost, 2 a service is, 3 a service is degraded, 4 one has recovered, 5 for show.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from domzero.engine.clock import moment
from domzero.engine.row import Row
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack

MESSAGES_KEPT: Final = 10_000
"""How many messages there can be; the oldest go first."""
ROOM: Final = 100
"""For how many new ones room is made at once: looking for the oldest takes a look at all."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One kind."""

    name: str
    priority: int


VM_STARTED: Final = Alert("VM_STARTED", 5)
VM_SHUTDOWN: Final = Alert("VM_SHUTDOWN", 3)
VM_REBOOTED: Final = Alert("VM_REBOOTED", 3)
VM_SUSPENDED: Final = Alert("VM_SUSPENDED", 5)
VM_RESUMED: Final = Alert("VM_RESUMED", 5)
VM_CRASHED: Final = Alert("VM_CRASHED", 3)
VM_CLONED: Final = Alert("VM_CLONED", 5)
BOND_STATUS_CHANGED: Final = Alert("BOND_STATUS_CHANGED", 3)
PBD_PLUG_FAILED: Final = Alert("PBD_PLUG_FAILED_ON_SERVER_START", 3)
MANAGEMENT_TAKEN_BACK: Final = Alert("HOST_MANAGEMENT_CHANGE_TAKEN_BACK", 3)
"""The host's own: XenServer keeps a change that cuts it off."""


def tell(stack: Stack, alert: Alert, cls: str, uuid: str, body: str) -> Ref:
    """Leave an alert about an object; `cls` is a word of the enum of that name."""
    return leave_message(stack, alert.name, alert.priority, cls, uuid, body)


def tell_of_machine(stack: Stack, alert: Alert, vm: Ref, what: str) -> None:
    """Leave an alert about a machine, in a sentence that names it and says what happened; none of one that is gone."""
    found = stack.database.find("VM", vm)
    if found is not None:
        body = f"VM '{found.record['name_label']}' {what} (uuid: {found.record['uuid']})"
        tell(stack, alert, "VM", found.record["uuid"], body)


def on_host(stack: Stack) -> str:
    """Where machines run, for a sentence."""
    found = stack.database.find("host", stack.host) if stack.host != NULL_REF else None
    return f"on host: {found.record['name_label']}" if found is not None else "here"


def leave_message(stack: Stack, name: str, priority: int, cls: str, uuid: str, body: str) -> Ref:
    """A new message; when there are too many, the oldest go."""
    fields = {"name": name, "priority": priority, "cls": cls, "obj_uuid": uuid, "body": body}
    with stack.database.transaction() as transaction:
        message = transaction.create("message", {**fields, "timestamp": moment(stack.clock.now())})
        rows = stack.database.rows("message")
        if len(rows) > MESSAGES_KEPT:
            for row in superfluous(rows.values(), MESSAGES_KEPT - ROOM):
                transaction.destroy("message", row.ref)
    return message


def superfluous(rows: Collection[Row], kept: int) -> list[Row]:
    """The oldest rows, so many that no more than `kept` remain without them."""
    return heapq.nsmallest(max(len(rows) - kept, 0), rows, key=attrgetter("created"))
