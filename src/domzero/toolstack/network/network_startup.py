"""The host's network at a start, before machines are looked for: rows first, then the host."""

from __future__ import annotations

import logging

from domzero.engine.errors import ApiError
from domzero.host.control.protocol import ControlError
from domzero.host.network.protocol import NetworkError
from domzero.idl.types import Ref
from domzero.toolstack.network.interfaces import (
    appoint_management,
    introduce_interfaces,
    refresh_interfaces_if_possible,
    settle_management,
)
from domzero.toolstack.network.internal_network import ensure_internal_network
from domzero.toolstack.network.management import keep_disabled
from domzero.toolstack.network.probation import take_back_unproven
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)


async def start_networks(stack: Stack, *, first: bool) -> list[Ref]:
    """Make rows and host agree; `first` tells the first start of a host. What cannot be done is logged.

    Gives the cards whose networks are not what they were: they are to be joined anew when their machines are known.
    """
    await keep_disabled(stack)
    moved = await take_back_unproven(stack)
    settle_management(stack)
    try:
        await introduce_interfaces(stack, plugged=True)
        appoint_management(stack, await stack.network.interfaces())
        await ensure_internal_network(stack, first=first)
    except (NetworkError, ControlError, ApiError, OSError) as error:
        log.warning("the host's networks are not all there: %s", error)
    await stack.networking.bring_up()
    await refresh_interfaces_if_possible(stack)
    return moved
