"""The console objects of a running machine: where its screen and its serial line are reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from domzero.engine.transactions import Transaction
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack

SCREEN: Final = "rfb"
SERIAL: Final = "vt100"
NO_SCREEN: Final = "disable_pv_vnc"
"""The other_config key with which a paravirtual machine does without a screen."""


def location(authority: str, console: Ref) -> str:
    """The address that clients connect to. `authority` is host and port as in an https address."""
    return f"https://{authority}/console?ref={console}"


def refresh_locations(stack: Stack) -> None:
    """After a start, perhaps on another port or address: say where the consoles are reached now."""
    with stack.database.transaction() as transaction:
        for ref in stack.database.refs("console"):
            transaction.update("console", ref, location=location(stack.authority, ref))


def protocols(record: Mapping[str, Any], *, hvm: bool) -> tuple[str, ...]:
    """What the machine's consoles speak."""
    if not hvm and record["other_config"].get(NO_SCREEN) == "1":
        return (SERIAL,)
    return (SCREEN, SERIAL)


def open_consoles(stack: Stack, transaction: Transaction, vm: Ref, *, hvm: bool) -> None:
    """Make the consoles that the machine lacks. They stay the same over a reboot."""
    database = stack.database
    record = database.record("VM", vm)
    present = {database.get("console", console, "protocol") for console in record["consoles"]}
    for protocol in protocols(record, hvm=hvm):
        if protocol in present:
            continue
        ref = f"OpaqueRef:{database.new_uuid()}"
        fields = {"protocol": protocol, "location": location(stack.authority, ref), "VM": vm}
        transaction.create("console", fields, ref=ref)


def settle_host_consoles(stack: Stack) -> None:
    """Give the control domain the consoles of the host itself, or take them away where nobody may see those."""
    database = stack.database
    vm = database.get("host", stack.host, "control_domain")
    wanted = protocols(database.record("VM", vm), hvm=False) if stack.settings.has_host_console else ()
    with database.transaction() as transaction:
        for console in database.get("VM", vm, "consoles"):
            if database.get("console", console, "protocol") not in wanted:
                transaction.destroy("console", console)
        if wanted:
            open_consoles(stack, transaction, vm, hvm=False)


def close_consoles(stack: Stack, transaction: Transaction, vm: Ref) -> None:
    """Remove the machine's consoles."""
    for console in stack.database.get("VM", vm, "consoles"):
        transaction.destroy("console", console)


def machine_of(stack: Stack, ref: Ref) -> Ref:
    """The machine that a console address means: a console's, or the machine itself. NULL_REF where there is none."""
    console = stack.database.find("console", ref)
    if console is not None:
        return str(console.record["VM"])
    return ref if stack.database.find("VM", ref) is not None else NULL_REF
