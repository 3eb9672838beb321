"""Crash dumps: what a guest's memory held when it crashed, kept on a disk."""

from __future__ import annotations

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks


@implements("crashdump.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Delete the dump with the disk that holds it; a disk that is gone already is no error."""
    vdi = stack.database.get("crashdump", self, "VDI")
    if stack.database.find("VDI", vdi) is not None:
        sr = stack.database.get("VDI", vdi, "SR")
        async with (
            stack.gates["VDI"].operation(context, vdi, "destroy"),
            stack.gates["SR"].operation(context, sr, "vdi_destroy"),
        ):
            await disks.destroy_vdi(stack, vdi)
    if stack.database.find("crashdump", self) is not None:
        with stack.database.transaction() as transaction:
            transaction.destroy("crashdump", self)
