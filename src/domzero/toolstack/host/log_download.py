"""`GET /host_logs_download`: domzero's own logs, those that were turned over included, as a tar archive."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Generator
from contextlib import aclosing
from pathlib import Path

from domzero.engine.context import Context
from domzero.engine.exchange import Arguments, Peer, serves
from domzero.toolstack.host.streams import attachment, threaded
from domzero.toolstack.stack import Stack

PIECE = 256 << 10


@serves("GET", "/host_logs_download", role="pool-operator", label="host.logs_download")
async def logs_download(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Send the logs as they are when each is reached."""
    stack.audit.flush()
    peer.begin(200, attachment("application/x-tar", "host-logs.tar"))
    with context.task.cancellable():
        async with aclosing(threaded(archive(stack.diagnosis.log_files()))) as pieces:
            async for piece in pieces:
                await peer.write(piece)


def archive(paths: tuple[Path, ...]) -> Generator[bytes, None, None]:
    """A tar archive of those files that are there. What a file grows by meanwhile is left out; what it lacks, because
    it was cut short, is filled up with zeros."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            member = tarfile.TarInfo(f"logs/{path.name}")
            member.size, member.mtime, member.mode = status.st_size, int(status.st_mtime), 0o600
            yield member.tobuf(tarfile.GNU_FORMAT, "utf-8", "replace")
            left = status.st_size
            while left:
                data = file.read(min(PIECE, left)) or bytes(min(PIECE, left))
                left -= len(data)
                yield data
            yield bytes(-status.st_size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
