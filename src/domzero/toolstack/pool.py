"""The pool as a whole."""

from __future__ import annotations

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack


@implements("pool.sync_database")
async def sync_database(stack: Stack, context: Context) -> None:
    """Returns when everything acknowledged so far is on disk, on every host of the pool."""
    await stack.database.durable()


@implements("pool.recover_slaves")
def recover_slaves(stack: Stack, context: Context) -> tuple[Ref, ...]:
    """Tell the other hosts who leads the pool now; the answer lists those that were reached."""
    return ()


@implements("pool.designate_new_master")
def designate_new_master(stack: Stack, context: Context, host: Ref) -> None:
    """Hand the lead to another host. Nothing to do for the one that leads; unknown ones are HANDLE_INVALID."""
    stack.database.row("host", host)
    if stack.database.get("pool", stack.pool, "master") != host:
        raise ApiError("HOST_NOT_LIVE")
