"""Functions that a guest's agent carries out for a caller of VM.call_plugin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.xenstore.protocol import XenstoreError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.xenstore.requests import ANNOUNCED, control, value_of

PLUGIN: Final = "guest-agent-operation"
REMOTE_DESKTOP: Final = {"request-rdp-on": b"1", "request-rdp-off": b"0"}
"""Function → what `control/ts` then says."""
INTERVAL: Final = 10.0
"""Seconds between two calls for the same machine."""


@implements("VM.call_plugin")
async def call_plugin(stack: Stack, context: Context, vm: Ref, plugin: str, fn: str, args: Mapping[str, str]) -> str:
    """Ask the guest's agent to turn its remote desktop on or off; an empty text when it was asked.

    Whether it did is seen in the guest metrics. Raises XENAPI_MISSING_PLUGIN, XENAPI_PLUGIN_FAILURE,
    VM_CALL_PLUGIN_RATE_LIMIT. Both functions take no arguments, and what there is of them is not looked at.
    """
    async with stack.gates["VM"].operation(context, vm, "call_plugin"), stack.machines.running(vm) as domain:
        if plugin != PLUGIN:
            raise ApiError("XENAPI_MISSING_PLUGIN", plugin)
        request = REMOTE_DESKTOP.get(fn.replace("_", "-"))
        if request is None:
            raise ApiError("XENAPI_PLUGIN_FAILURE", "no such function", "", f"{PLUGIN} has no function {fn}")
        _pace(vm, stack.guests.wait_before_call(vm, INTERVAL))
        _ask(stack, domain.domid, request)
    return ""


def _pace(vm: Ref, wait: float) -> None:
    if wait > 0:
        raise ApiError("VM_CALL_PLUGIN_RATE_LIMIT", vm, str(int(INTERVAL)), str(math.ceil(wait)))


def _ask(stack: Stack, domid: int, request: bytes) -> None:
    """Agents of every age take the request; those without `feature-ts2` neither remove it nor tell what came of it."""
    xenstore = stack.guests.xenstore
    if xenstore is None or value_of(xenstore, control(domid, "feature-ts")) != ANNOUNCED:
        raise ApiError("XENAPI_PLUGIN_FAILURE", "not offered", "", "no agent in the guest offers to do this")
    try:
        xenstore.write(control(domid, "ts"), request)
    except XenstoreError as error:
        raise ApiError("XENAPI_PLUGIN_FAILURE", "not asked", "", f"the store refuses it: {error.code}") from error
