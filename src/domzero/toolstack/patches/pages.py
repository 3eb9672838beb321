"""`/pool_patch_upload`: a bundle comes in, one at a time, and nothing stays of one that is not good; and
`/pool_patch_download`: it goes out again as it came.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Peer, RequestError, serves
from domzero.finish import in_thread
from domzero.host.updates.protocol import LARGEST, Bundle
from domzero.idl.types import Ref, RefTo
from domzero.toolstack.host.streams import attachment
from domzero.toolstack.patches import rules
from domzero.toolstack.stack import Stack


@serves("PUT", "/pool_patch_upload", role="pool-operator", label="pool_patch.upload", result=RefTo("pool_patch"))
async def upload(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> Ref:
    """A new patch out of the bundle that is sent.

    Raises OTHER_OPERATION_IN_PROGRESS while another one comes, INVALID_PATCH for nothing, INVALID_PATCH_WITH_LOG,
    PATCH_ALREADY_EXISTS; 413 for one that is too large.
    """
    if peer.chunked:
        raise RequestError(411, "Send the bundle with a Content-Length, not in chunks.")
    if (peer.length or 0) > LARGEST:
        raise RequestError(413, f"A bundle has at most {LARGEST} bytes.")
    part = rules.directory_of(stack) / rules.UNFINISHED
    try:
        file = await in_thread(_create, part)
    except FileExistsError:
        raise ApiError("OTHER_OPERATION_IN_PROGRESS", "pool", stack.pool) from None
    try:
        with context.task.cancellable():
            size = await _receive(context, peer, file)
        bundle = await rules.inspect(stack, part)
        patch = await _keep(stack, bundle, part, size)
    finally:
        await in_thread(_discard, file, part)
    peer.begin(200, length=0)
    return patch


@serves("GET", "/pool_patch_download", role="pool-operator", label="pool_patch.download")
async def download(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Send the bundle of the patch that `uuid` (or `ref`) names. Raises CANNOT_FIND_PATCH for one that was cleaned."""
    named = arguments.need("uuid", "ref")
    is_ref = named.startswith("OpaqueRef:")
    patch = stack.database.row("pool_patch", named).ref if is_ref else stack.database.by_uuid("pool_patch", named)
    path = rules.file_of(stack, patch)
    try:
        file = await in_thread(path.open, "rb")
    except FileNotFoundError:
        raise ApiError("CANNOT_FIND_PATCH") from None
    with closing(file), context.task.cancellable():
        size = os.fstat(file.fileno()).st_size
        peer.begin(200, attachment("application/octet-stream", path.name), size)
        while data := await in_thread(file.read, 1 << 20):
            await peer.write(data)
            context.task.set_progress(file.tell() / size)


def _create(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _discard(file: BinaryIO, path: Path) -> None:
    file.close()
    path.unlink(missing_ok=True)


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _receive(context: Context, peer: Peer, file: BinaryIO) -> int:
    size = 0
    while data := await peer.read(1 << 20):
        size += len(data)
        if size > LARGEST:
            raise RequestError(413, f"A bundle has at most {LARGEST} bytes.")
        await in_thread(file.write, data)
        context.task.set_progress(size / peer.length if peer.length else 0.0)
    if not size:
        raise ApiError("INVALID_PATCH")
    await in_thread(_finish, file)
    return size


async def _keep(stack: Stack, bundle: Bundle, part: Path, size: int) -> Ref:
    if any(row.record["uuid"] == bundle.uuid for row in stack.database.rows("pool_patch").values()):
        raise ApiError("PATCH_ALREADY_EXISTS", bundle.uuid)
    with stack.database.transaction() as transaction:
        patch = transaction.create(
            "pool_patch",
            {
                "uuid": bundle.uuid,
                "name_label": bundle.name_label,
                "name_description": bundle.name_description,
                "version": bundle.version,
                "size": size,
                "after_apply_guidance": bundle.guidance,
            },
        )
    # At once after the row, and undone together with it: a bundle without a row goes at the next start.
    try:
        await in_thread(part.rename, rules.file_of(stack, patch))
        await stack.database.durable()
    except BaseException:
        if stack.database.find("pool_patch", patch) is not None:
            with stack.database.transaction() as transaction:
                transaction.destroy("pool_patch", patch)
        raise
    return patch
