"""What the host has to say: domzero's own log and the kernel's."""

from __future__ import annotations

import asyncio
import logging

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.control.protocol import ControlError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

LOG_LIMIT = 1 << 20
"""Bytes of the latest log that `host.get_log` answers with."""
DESTINATION = "syslog_destination"
"""The key of host.logging that names the server: a name or an address, perhaps with a port."""
RESUME_INTERVAL = 60.0
LONGEST_INTERVAL = 3600.0
"""Seconds between two attempts to find the server after a start: at first, and at last."""


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
    try:
        await asyncio.to_thread(stack.control.send_log_to, _destination(stack, host))
    except ControlError as error:
        raise ApiError("INVALID_VALUE", DESTINATION, str(error)) from error


async def resume_sending(stack: Stack) -> None:
    """After a start: send domzero's log where it went before. A name may not be found yet; it is looked for again."""
    pause = RESUME_INTERVAL
    while destination := _destination(stack, stack.host):
        try:
            await asyncio.to_thread(stack.control.send_log_to, destination)
        except ControlError as error:
            log.warning("the log is not sent yet: %s", error)
            await stack.clock.sleep(pause)
            pause = min(2 * pause, LONGEST_INTERVAL)
        else:
            return


def _destination(stack: Stack, host: Ref) -> str:
    return str(stack.database.get("host", host, "logging").get(DESTINATION, ""))


async def _own_log(stack: Stack) -> str:
    return await asyncio.to_thread(stack.control.log_tail, LOG_LIMIT)


async def _kernel_log(stack: Stack, *, clear: bool) -> str:
    try:
        return await stack.control.kernel_log(clear=clear)
    except ControlError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error
