"""What the host has to say: domzero's own log and the kernel's."""

from __future__ import annotations

import asyncio

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.control.protocol import ControlError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack

LOG_LIMIT = 1 << 20
"""Bytes of the latest log that `host.get_log` answers with."""


@implements("host.get_log")
async def get_log(stack: Stack, context: Context, host: Ref) -> str:
    """The latest part of domzero's own log, at most `LOG_LIMIT` bytes, from a line's start."""
    stack.database.row("host", host)
    return await _own_log(stack)


@implements("host.dmesg")
async def dmesg(stack: Stack, context: Context, host: Ref) -> str:
    """The kernel's messages."""
    stack.database.row("host", host)
    return await _kernel_log(stack, clear=False)


@implements("host.dmesg_clear")
async def dmesg_clear(stack: Stack, context: Context, host: Ref) -> str:
    """The kernel's messages, which the kernel then forgets."""
    stack.database.row("host", host)
    return await _kernel_log(stack, clear=True)


@implements("host.syslog_reconfigure")
async def syslog_reconfigure(stack: Stack, context: Context, host: Ref) -> None:
    """Send domzero's log to the server named by `host.logging["syslog_destination"]`, or stop doing so."""
    destination = stack.database.get("host", host, "logging").get("syslog_destination", "")
    try:
        await asyncio.to_thread(stack.control.send_log_to, destination)
    except ControlError as error:
        raise ApiError("INVALID_VALUE", "syslog_destination", str(error)) from error


async def _own_log(stack: Stack) -> str:
    return await asyncio.to_thread(stack.control.log_tail, LOG_LIMIT)


async def _kernel_log(stack: Stack, *, clear: bool) -> str:
    try:
        return await stack.control.kernel_log(clear=clear)
    except ControlError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error
