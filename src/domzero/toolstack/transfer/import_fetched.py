"""`VM.import`: machines from an archive that the host fetches by itself.

The archive is fetched as a whole first, into the state directory, and goes away again whatever becomes of it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.finish import in_thread
from domzero.host.download.protocol import DownloadError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.transfer.import_machines import import_archive
from domzero.toolstack.transfer.import_pages import repository_named
from domzero.toolstack.transfer.remap import Options

DIRECTORY: Final = "incoming"
PATIENCE: Final = 24 * 3600.0
"""Seconds that an archive may take to come."""
PIECE: Final = 1 << 20


@implements("VM.import")
async def import_fetched(
    stack: Stack, context: Context, url: str, sr: Ref, full_restore: bool, force: bool
) -> tuple[Ref, ...]:
    """The machines of an archive at a web address, as `PUT /import` makes them.

    Raises IMPORT_ERROR when it cannot be fetched, or is larger than half of what is free below the state directory.
    """
    options = Options(sr=repository_named(stack, sr), restore=full_restore, force=force)
    with context.task.cancellable():
        async with _fetched(stack, url) as file:
            return await import_archive(stack, context, lambda: in_thread(file.read, PIECE), options)


@asynccontextmanager
async def _fetched(stack: Stack, url: str) -> AsyncIterator[IO[bytes]]:
    """What is at the address, in a file that has no name any more."""
    directory = stack.settings.state_dir / DIRECTORY
    largest = await in_thread(_prepared, directory)
    path = directory / f"{os.getpid()}-{stack.database.new_uuid()}"
    try:
        await stack.download(url, path, largest=largest, patience=PATIENCE)
        file = await in_thread(path.open, "rb")
    except DownloadError as error:
        raise ApiError("IMPORT_ERROR", f"The archive could not be fetched: {error}") from error
    finally:
        await in_thread(path.unlink, missing_ok=True)
    with file:
        yield file


def _prepared(directory: Path) -> int:
    """Make the directory, without what a daemon that was killed left there; how large a file in it may be."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for path in directory.iterdir():
        if not path.name.startswith(f"{os.getpid()}-"):
            path.unlink(missing_ok=True)
    free = os.statvfs(directory)
    return free.f_bavail * free.f_frsize // 2
