"""This host's media after a start of the daemon: plugged and looked at side by side, in bounded time.

A medium that does not answer (a server that is down) is left to its driver's own patience: the start goes on without
it, and when it comes after all its PBD is marked and its disks are looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from domzero.engine.clock import settled
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.alerts import PBD_PLUG_FAILED, tell
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.pbd import attach_medium, record_attached
from domzero.toolstack.storage.scanning import scan

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that the start waits for media to be attached, and again for what is on them to be listed."""


async def replug_all(stack: Stack) -> None:
    """Plug this host's PBDs again, or go on trying in the background. What fails is logged, not fatal.

    What the disks allow is not computed anew: it was stored when they were plugged.
    """
    own = [ref for ref, row in stack.database.rows("PBD").items() if row.record["host"] == stack.host]
    with stack.database.transaction(observed=True) as transaction:
        for pbd in own:
            transaction.update("PBD", pbd, currently_attached=False)

    async def attach(pbd: Ref) -> None:
        await stack.plugs.share(pbd, lambda: attach_medium(stack, pbd))

    for pbd, attaching in (await _together(stack, own, attach)).items():
        if not attaching.done():
            log.warning("storage repository %s does not answer yet", _name(stack, pbd))
            stack.machines.in_background(_late(stack, pbd, attaching), f"plug {pbd}")
        elif await _succeeds(stack, pbd, attaching):
            with stack.database.transaction(observed=True) as transaction:
                transaction.update("PBD", pbd, currently_attached=True)
        else:
            _tell(stack, pbd)


async def scan_all(stack: Stack) -> None:
    """Look at every repository that is plugged, or go on looking in the background."""
    plugged = [row.record["SR"] for row in stack.database.rows("PBD").values() if row.record["currently_attached"]]

    async def look(sr: Ref) -> None:
        await stack.scans.share(sr, lambda: scan(stack, sr, alone=False))

    for sr, looking in (await _together(stack, plugged, look)).items():
        if looking.done():
            await _succeeds(stack, sr, looking)
        else:
            log.warning("storage repository %s takes long to be listed", _name(stack, sr))
            stack.machines.in_background(_finished(stack, sr, looking), f"scan {sr}")


async def _together(
    stack: Stack, refs: list[Ref], work: Callable[[Ref], Coroutine[Any, Any, None]]
) -> dict[Ref, asyncio.Task[None]]:
    """Do the work for all at once. Returns when all is done or the patience at its end; the rest goes on."""
    tasks = {ref: asyncio.get_running_loop().create_task(work(ref)) for ref in dict.fromkeys(refs)}
    if tasks:
        waiting = asyncio.ensure_future(asyncio.wait(tasks.values()))
        await settled(stack.clock, waiting, PATIENCE)
        waiting.cancel()
    return tasks


async def _finished(stack: Stack, ref: Ref, task: asyncio.Task[None]) -> None:
    await _succeeds(stack, ref, task)


async def _succeeds(stack: Stack, ref: Ref, task: asyncio.Task[None]) -> bool:
    """Wait for the work, and have it end where this wait is cancelled; whether it succeeded. What it says is logged."""
    try:
        await task
    except ApiError as error:
        log.warning("storage repository %s is not available: %s", _name(stack, ref), error)
        return False
    except Exception:  # what a driver does wrong must not keep the host from serving
        log.exception("storage repository %s failed in a way that it should not", _name(stack, ref))
        return False
    return True


async def _late(stack: Stack, pbd: Ref, attaching: asyncio.Task[None]) -> None:
    """The rest of a plugging that takes longer; meanwhile nobody unplugs or forgets what is about to come."""
    sr = stack.database.get("PBD", pbd, "SR")
    context = stack.contexts.background("PBD.plug")
    try:
        async with stack.gates["SR"].operation(context, sr, "plug"):
            if not await _succeeds(stack, pbd, attaching):
                _tell(stack, pbd)
                return
            record_attached(stack, pbd, attached=True)
        log.info("storage repository %s has come", _name(stack, sr))
        await stack.scans.share(sr, lambda: scan(stack, sr, alone=False))
    finally:
        attaching.cancel()
        stack.tasks.release(context.task)


def _tell(stack: Stack, pbd: Ref) -> None:
    body = f"Storage repository {_name(stack, pbd)} could not be attached when the toolstack started."
    tell(stack, PBD_PLUG_FAILED, "Host", stack.database.get("host", stack.host, "uuid"), body)


def _name(stack: Stack, ref: Ref) -> str:
    """The uuid of the repository that a PBD or SR reference means, for the log."""
    pbd = stack.database.find("PBD", ref)
    sr = stack.database.find("SR", pbd.record["SR"] if pbd is not None else ref)
    return str(sr.record["uuid"]) if sr is not None else ref
