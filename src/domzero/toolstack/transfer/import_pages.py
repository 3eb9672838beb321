"""`PUT /import` takes machines with their disks, `PUT /import_metadata` their descriptions alone.

The answer's head goes out before the body is read, as clients wait for it; what becomes of the import is told by the
request's task, whose result is the set of machines made.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Peer, PeerGoneError, serves
from domzero.idl.types import NULL_REF, Ref, RefTo, SetOf
from domzero.toolstack.stack import Stack
from domzero.toolstack.transfer.import_machines import import_archive
from domzero.toolstack.transfer.remap import Options

MACHINES: Final = SetOf(RefTo("VM"))
DISK: Final = "vdi:"
"""What begins the name of an argument that says which disk here a disk of the archive is."""
CHUNK: Final = 1 << 20
TAIL: Final = 64 << 20
"""Bytes behind an archive's end that are still taken, lest the client takes the end of the connection for a failure."""


class PeerSource:
    """An archive in a request's body."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._buffer = memoryview(bytearray(CHUNK))

    async def read(self) -> memoryview:
        """Some bytes, until the next call; nothing at the end.

        Raises IMPORT_ERROR_PREMATURE_EOF when the client goes away before.
        """
        try:
            return self._buffer[: await self._peer.read_into(self._buffer)]
        except PeerGoneError as error:
            raise ApiError("IMPORT_ERROR_PREMATURE_EOF") from error

    async def finish(self) -> None:
        """Take what follows the archive, where it is known how much that is. A client need not send it."""
        left = 0 if self._peer.length is None else TAIL
        with suppress(PeerGoneError):
            while left > 0 and (count := await self._peer.read_into(self._buffer)):
                left -= count


@serves("PUT", "/import", role="vm-admin", label="VM.import", result=MACHINES)
async def import_machines(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> tuple[Ref, ...]:
    """The machines of an archive, with their disks in the repository `sr_id` (or `sr_uuid`; the pool's default one).

    `restore` keeps uuids and addresses; `force` passes over what is wrong or missing, and keeps what was made.
    """
    refuse_chunked(peer)
    options = Options(
        sr=chosen_repository(stack, arguments), restore=arguments.flag("restore"), force=arguments.flag("force")
    )
    return await _received(stack, context, peer, options, dry_run=False)


@serves("PUT", "/import_metadata", role="vm-admin", label="VM.import_metadata", result=MACHINES)
async def import_metadata(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> tuple[Ref, ...]:
    """The machines of an archive, on disks that are here already.

    `vdi:<uuid>=<uuid>` says which disk here is to stand for one of the archive; `dry_run` makes nothing.
    """
    refuse_chunked(peer)
    named = {name.removeprefix(DISK): uuid for name, uuid in arguments.items() if name.startswith(DISK)}
    options = Options(restore=arguments.flag("restore"), force=arguments.flag("force"), content=False, disks=named)
    return await _received(stack, context, peer, options, dry_run=arguments.flag("dry_run"))


async def _received(
    stack: Stack, context: Context, peer: Peer, options: Options, *, dry_run: bool
) -> tuple[Ref, ...]:  # fmt: skip
    peer.begin(200, (("cache-control", "no-cache, no-store"), ("task-id", context.task.ref)))
    source = PeerSource(peer)
    with context.task.cancellable():
        made = await import_archive(stack, context, source.read, options, dry_run=dry_run)
    await source.finish()
    return made


def refuse_chunked(peer: Peer) -> None:
    """Raises IMPORT_ERROR_CANNOT_HANDLE_CHUNKED for a body in chunks, after the status that clients know it by."""
    if peer.chunked:
        peer.begin(403, length=0)
        raise ApiError("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED")


def chosen_repository(stack: Stack, arguments: Arguments) -> Ref:
    """Where a query wants the disks. Raises as `repository_named`."""
    return repository_named(stack, arguments.get("sr_id") or arguments.get("sr_uuid") or NULL_REF)


def repository_named(stack: Stack, named: str) -> Ref:
    """A repository for disks by reference or uuid; the pool's default one where that is null.

    Raises DEFAULT_SR_NOT_FOUND for one that does not exist, SR_OPERATION_NOT_SUPPORTED for a library of CD images.
    """
    database = stack.database
    chosen = database.get("pool", stack.pool, "default_SR") if named == NULL_REF else named
    if database.find("SR", chosen) is None:
        try:
            chosen = database.by_uuid("SR", chosen)
        except ApiError:
            raise ApiError("DEFAULT_SR_NOT_FOUND", named) from None
    if database.get("SR", chosen, "content_type") == "iso":
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", chosen)
    return str(chosen)
