"""What the pages that send files have in common."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import closing
from io import BufferedWriter
from pathlib import Path

from domzero.engine.exchange import Headers
from domzero.finish import in_thread


async def threaded(blocking: Generator[bytes, None, None]) -> AsyncGenerator[bytes, None]:
    """The pieces of a generator that blocks, each made in a thread when the one before was taken."""
    with closing(blocking):
        while (piece := await in_thread(next, blocking, None)) is not None:
            yield piece
            # A piece may have been ready at once, and calls want their turn between any two.
            await asyncio.sleep(0)


def create(path: Path) -> BufferedWriter:
    """A new file that nobody else can ever read. Raises `OSError`."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def attachment(media_type: str, name: str) -> Headers:
    """The headers of an answer that browsers are to keep as a file."""
    return (("content-type", media_type), ("content-disposition", f'attachment; filename="{name}"'))
