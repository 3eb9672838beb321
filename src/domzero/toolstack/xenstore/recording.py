"""Keeps VM_guest_metrics true to what guests report, changing a row only where it says something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from domzero.engine.clock import moment
from domzero.engine.database import Database
from domzero.host.xenstore.protocol import Nodes, XenstoreError, home
from domzero.idl.types import Ref
from domzero.toolstack.xenstore.report import TOPICS, metrics_fields

if TYPE_CHECKING:
    from domzero.toolstack.stack import Stack

MOST_NODES: Final = 2000
"""Nodes of a report that are looked at: more than a guest may have."""
DEEPEST: Final = 8


def record_report(stack: Stack, vm: Ref, domid: int, report: Mapping[str, bytes], *, heard: bool) -> None:
    """Make the machine's row say what its running domain reports. `heard` tells whether it has lately."""
    found = stack.database.find("VM", vm)
    if found is None or found.record["domid"] != domid:
        return
    fields = metrics_fields(report)
    if fields is None:
        return
    row = stack.database.find("VM_guest_metrics", found.record["guest_metrics"])
    before = row.record if row is not None else None
    fields["live"] = heard
    changed = {name: value for name, value in fields.items() if before is None or before[name] != value}
    if not changed:
        return
    changed["last_updated"] = moment(stack.clock.now())
    with stack.database.transaction(observed=True) as transaction:
        if row is not None:
            transaction.update("VM_guest_metrics", row.ref, **changed)
        else:
            transaction.update("VM", vm, guest_metrics=transaction.create("VM_guest_metrics", changed))
    if "other" in changed:
        stack.gates["VM"].refresh(vm)


def was_silent(database: Database, vm: Ref) -> bool:
    """Whether the machine's agent had fallen silent when a daemon last looked, whichever that was."""
    row = database.find("VM_guest_metrics", database.get("VM", vm, "guest_metrics"))
    return row is not None and not row.record["live"]


def record_silence(stack: Stack, vm: Ref) -> None:
    """A guest has said nothing for long."""
    found = stack.database.find("VM", vm)
    row = stack.database.find("VM_guest_metrics", found.record["guest_metrics"]) if found else None
    if row is not None and row.record["live"]:
        with stack.database.transaction(observed=True) as transaction:
            transaction.update("VM_guest_metrics", row.ref, live=False)


def report_of(nodes: Nodes, domid: int) -> dict[str, bytes]:
    """What a domain's agent has written, by its path below the domain's directory. Raises `XenstoreError`."""
    report: dict[str, bytes] = {}
    for topic in TOPICS:
        _read(nodes, home(domid), topic, report)
    return report


def _read(nodes: Nodes, above: str, path: str, report: dict[str, bytes]) -> None:
    try:
        value, children = nodes.read(f"{above}/{path}"), nodes.directory(f"{above}/{path}")
    except XenstoreError as error:
        if error.code != "ENOENT":
            raise
        return
    report[path] = value
    for name in children if path.count("/") < DEEPEST else ():
        if len(report) >= MOST_NODES:
            return
        _read(nodes, above, f"{path}/{name}", report)
