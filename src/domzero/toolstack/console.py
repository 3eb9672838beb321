"""Consoles come and go with running machines; clients can neither make nor take them away meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack


@implements("console.create")
def create(stack: Stack, context: Context, args: Mapping[str, Any]) -> Ref:
    """Always OPERATION_NOT_ALLOWED: a record from a client says of no machine what it shows."""
    raise ApiError("OPERATION_NOT_ALLOWED", "A machine's consoles are made when it starts.")


@implements("console.destroy")
def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Remove the console of a machine that is not there any more, else OPERATION_NOT_ALLOWED."""
    machine = stack.database.find("VM", stack.database.get("console", self, "VM"))
    if machine is not None and machine.record["power_state"] in ("Running", "Paused"):
        raise ApiError("OPERATION_NOT_ALLOWED", "A machine keeps its consoles while it runs.")
    with stack.database.transaction() as transaction:
        transaction.destroy("console", self)
