"""Copying a raw file without filling its holes (lseek(2), SEEK_DATA)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from domzero.finish import in_thread
from domzero.host.storage import numbers
from domzero.host.storage.protocol import Progress

BLOCK = 16 << 20
"""Bytes copied before progress is told and a cancellation is noticed."""


async def copy_sparse(source: Path, target: Path, progress: Progress) -> None:
    """Write the data of one file into another that is blank and at least as large. Raises `StorageError`."""
    offset, size = 0, 0
    try:
        with source.open("rb") as reader, target.open("r+b") as writer:
            size = os.fstat(reader.fileno()).st_size
            while (offset := await in_thread(_next_data, reader.fileno(), offset, size)) < size:
                offset = await in_thread(_copy, reader.fileno(), writer.fileno(), offset)
                progress(offset / size)
    except OSError as error:
        raise numbers.from_os(error, numbers.DISK_MISSING) from error
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
