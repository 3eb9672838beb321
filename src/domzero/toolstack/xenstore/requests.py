"""What the toolstack asks of a guest's agent: a node in `control`, which the agent removes to acknowledge it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from domzero.engine.clock import settled
from domzero.host.xenstore.protocol import Nodes, Xenstore, XenstoreError, home

if TYPE_CHECKING:
    from domzero.toolstack.stack import Stack
    from domzero.toolstack.vm.owner import Domain

log = logging.getLogger(__name__)

ACKNOWLEDGEMENT: Final = 30.0
"""Seconds that an agent may take to acknowledge a request to shut down."""
ANNOUNCED: Final = "1"


def control(domid: int, name: str) -> str:
    """The path of a request or of what an agent announces."""
    return f"{home(domid)}/control/{name}"


def value_of(nodes: Nodes, path: str) -> str:
    """A node's text, nothing where there is no node."""
    try:
        return nodes.read(path).decode(errors="replace")
    except XenstoreError:
        return ""


async def ask_to_shut_down(stack: Stack, domain: Domain, how: str) -> bool:
    """Ask the guest's agent to `poweroff` or `reboot`. Whether it is going to, or the domain has ended.

    Nothing is asked where the agent has not announced that it can. A request that nobody acknowledges is taken back.
    """
    xenstore = stack.guests.xenstore
    if xenstore is None or value_of(xenstore, control(domain.domid, "feature-shutdown")) != ANNOUNCED:
        return False
    request = control(domain.domid, "shutdown")
    try:
        async with xenstore.watch(request) as changes:
            xenstore.write(request, how.encode())
            answer = asyncio.ensure_future(_acknowledged(xenstore, request, changes))
            over = asyncio.ensure_future(asyncio.wait((answer, domain.ended), return_when=asyncio.FIRST_COMPLETED))
            try:
                if await settled(stack.clock, over, ACKNOWLEDGEMENT):
                    return True
            finally:
                over.cancel()
                answer.cancel()
                await asyncio.gather(over, answer, return_exceptions=True)
                _take_back(xenstore, request)
    except XenstoreError as error:
        log.warning("domain %d cannot be asked to shut down: %s", domain.domid, error.code)
    log.info("the agent of domain %d does not acknowledge that it is to shut down", domain.domid)
    return False


async def _acknowledged(nodes: Nodes, request: str, changes: AsyncIterator[str]) -> None:
    """Wait until a request is gone, or empty."""
    async for _ in changes:
        if not value_of(nodes, request):
            return


def _take_back(xenstore: Xenstore, request: str) -> None:
    if value_of(xenstore, request):
        xenstore.remove(request)
