"""PBDs: how one host reaches one storage repository."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.storage.protocol import StorageError
from domzero.idl.types import Ref
from domzero.toolstack.presence import is_in_domain
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.storage.device_secrets import require_secrets
from domzero.toolstack.storage.repositories import asking, driver_for, refresh_size, repository_of

log = logging.getLogger(__name__)

DETACHING = 20.0
"""Seconds that the end of the daemon waits for media to be let go."""


@implements("PBD.create")
def create(stack: Stack, context: Context, args: Mapping[str, Any]) -> Ref:
    """A connection, not plugged yet. Raises PBD_EXISTS [sr, host, pbd] when the host has one to this SR."""
    database = stack.database
    database.row("host", args["host"])
    for pbd in database.record("SR", args["SR"])["PBDs"]:
        if database.get("PBD", pbd, "host") == args["host"]:
            raise ApiError("PBD_EXISTS", args["SR"], args["host"], pbd)
    with database.transaction() as transaction:
        pbd = transaction.create("PBD", args)
    stack.gates["SR"].refresh(args["SR"])
    return pbd


@implements("PBD.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Forget a connection that is neither plugged, which is OPERATION_NOT_ALLOWED, nor being plugged."""
    async with _configuring(stack, context, self, "pbd_destroy"):
        with stack.database.transaction() as transaction:
            transaction.destroy("PBD", self)


@asynccontextmanager
async def _configuring(stack: Stack, context: Context, pbd: Ref, operation: str) -> AsyncIterator[None]:
    """Within, the connection is not plugged by anybody."""
    async with stack.gates["SR"].operation(context, stack.database.get("PBD", pbd, "SR"), operation):
        if stack.database.get("PBD", pbd, "currently_attached"):
            raise ApiError("OPERATION_NOT_ALLOWED", "The PBD is plugged; unplug it first.")
        yield


@implements("PBD.plug")
async def plug(stack: Stack, context: Context, self: Ref) -> None:
    """Make the repository usable here; no error when it is. Raises SR_NOT_SHARABLE, SR_BACKEND_FAILURE_*."""
    sr = stack.database.get("PBD", self, "SR")
    async with stack.gates["SR"].operation(context, sr, "plug"):
        await plug_pbd(stack, self)
        try:
            await refresh_size(stack, sr)
        except ApiError as error:
            log.info("the sizes of %s are not known: %s", sr, error)


async def plug_pbd(stack: Stack, pbd: Ref) -> None:
    """As PBD.plug, for callers inside the toolstack."""

    async def attach() -> None:
        if not stack.database.get("PBD", pbd, "currently_attached"):
            await attach_medium(stack, pbd)
            record_attached(stack, pbd, attached=True)

    await stack.plugs.share(pbd, attach)


async def attach_medium(stack: Stack, pbd: Ref) -> None:
    """Have the driver attach the repository; the row stays as it is. Raises SR_NOT_SHARABLE, SR_BACKEND_FAILURE_*."""
    record = stack.database.record("PBD", pbd)
    sr = stack.database.record("SR", record["SR"])
    others = [other for other in sr["PBDs"] if other != pbd and stack.database.get("PBD", other, "currently_attached")]
    if others and not sr["shared"]:
        raise ApiError("SR_NOT_SHARABLE", record["SR"], record["host"])
    require_secrets(stack.database, record["device_config"])
    await asking(driver_for(stack, sr["type"]).attach(repository_of(stack, record["SR"], pbd)))


def record_attached(stack: Stack, pbd: Ref, *, attached: bool) -> None:
    """Note what has become of the medium; the repository, its disks and their drives allow other things now."""
    sr = stack.database.get("PBD", pbd, "SR")
    with stack.database.transaction(observed=True) as transaction:
        transaction.update("PBD", pbd, currently_attached=attached)
        stack.gates["SR"].refresh(sr)
        disks.refresh_operations(stack, stack.database.get("SR", sr, "VDIs"))


@implements("PBD.unplug")
async def unplug(stack: Stack, context: Context, self: Ref) -> None:
    """Let go of the repository; no error when it is not plugged. Raises VDI_IN_USE while a machine uses a disk, and
    OTHER_OPERATION_IN_PROGRESS while one is being worked on for long. Suspended machines and checkpoints use none."""
    async with stack.gates["SR"].operation(context, stack.database.get("PBD", self, "SR"), "unplug"):
        record = stack.database.record("PBD", self)
        if not record["currently_attached"]:
            return
        _refuse_while_used(stack, record["SR"])
        sr = stack.database.record("SR", record["SR"])
        await stack.merges.leave_repository(record["SR"])
        await asking(driver_for(stack, sr["type"]).detach(repository_of(stack, record["SR"], self)))
        record_attached(stack, self, attached=False)


def _refuse_while_used(stack: Stack, sr: Ref) -> None:
    for vdi in stack.database.get("SR", sr, "VDIs"):
        disk = stack.database.record("VDI", vdi)
        for vbd in disk["VBDs"]:
            if is_in_domain(stack.database, "VBD", vbd):
                raise ApiError("VDI_IN_USE", vdi, "PBD.unplug")
        for task, running in disk["current_operations"].items():
            raise ApiError("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi, running, task)


@implements("PBD.set_device_config")
async def set_device_config(stack: Stack, context: Context, self: Ref, value: dict[str, str]) -> None:
    """Change how the repository is reached, which must not be plugged meanwhile."""
    async with _configuring(stack, context, self, "pbd_create"):
        with stack.database.transaction() as transaction:
            transaction.update("PBD", self, device_config=value)


async def detach_all(stack: Stack) -> None:
    """Let go of this host's media at the end of the daemon. The rows stay as they are: the next start plugs again.

    Machines go on without the daemon, so what they use stays attached, unless a driver's letting go is no loss to them.
    A medium that hangs is left after a while.
    """
    plugged = [
        (pbd, row.record["SR"])
        for pbd, row in stack.database.rows("PBD").items()
        if row.record["host"] == stack.host and row.record["currently_attached"]
    ]
    detaching = [asyncio.ensure_future(_detach(stack, pbd, sr)) for pbd, sr in plugged if _may_go(stack, sr)]
    if detaching:
        _, hanging = await asyncio.wait(detaching, timeout=DETACHING)
        for task in hanging:
            task.cancel()


def _may_go(stack: Stack, sr: Ref) -> bool:
    database = stack.database
    driver = stack.storage.get(database.get("SR", sr, "type"))
    if driver is None or driver.info().detaches_under_machines:
        return driver is not None
    drives = (vbd for vdi in database.get("SR", sr, "VDIs") for vbd in database.get("VDI", vdi, "VBDs"))
    return not any(database.get("VBD", vbd, "currently_attached") for vbd in drives)


async def _detach(stack: Stack, pbd: Ref, sr: Ref) -> None:
    try:
        await driver_for(stack, stack.database.get("SR", sr, "type")).detach(repository_of(stack, sr, pbd))
    except StorageError as error:
        log.warning("storage repository %s could not be let go: %s", sr, error.text)
