"""Copying a raw file without filling its holes (lseek(2), SEEK_DATA)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from domzero.finish import in_thread
from domzero.host.storage import numbers
from domzero.host.storage.protocol import Progress

P = ParamSpec("P")
T = TypeVar("T")

BLOCK = 16 << 20
"""Bytes copied before progress is told and a cancellation is noticed."""


class Runner(Protocol):
    """Where blocking work is done, as `in_thread` does."""

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


async def copy_sparse(source: Path, target: Path, progress: Progress, run: Runner = in_thread) -> None:
    """Write the data of one file into another that is blank and at least as large. Raises `StorageError`."""
    opened: list[int] = []
    try:
        for path, flags in ((source, os.O_RDONLY), (target, os.O_RDWR)):
            opened.append(await run(os.open, path, flags | os.O_CLOEXEC))
        reader, writer = opened
        offset, size = 0, (await run(os.fstat, reader)).st_size
        while (offset := await run(_next_data, reader, offset, size)) < size:
            offset = await run(_copy, reader, writer, offset)
            progress(offset / size)
    except OSError as error:
        raise numbers.from_os(error, numbers.DISK_MISSING) from error
    finally:
        for descriptor in opened:
            await run(os.close, descriptor)
    progress(1.0)


def _next_data(descriptor: int, offset: int, size: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise


def _copy(reader: int, writer: int, offset: int) -> int:
    """Copy up to the next hole, at most `BLOCK`; returns the offset reached."""
    end = min(os.lseek(reader, offset, os.SEEK_HOLE), offset + BLOCK)
    while offset < end:
        data = os.pread(reader, min(1 << 20, end - offset), offset)
        if not data:
            return end
        os.pwrite(writer, data, offset)
        offset += len(data)
    return offset
