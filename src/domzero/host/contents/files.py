"""`DiskContents` without any tool, for raw files alone: what a simulated host has.

Bytes really are kept in the simulator's sparse files, so that what is imported can be exported again.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from domzero.finish import in_thread
from domzero.host.contents.protocol import ContentError, ContentReader, ContentWriter, MediumFullError, Stretch
from domzero.host.hypervisor.spec import DiskFormat, DiskSource

P = ParamSpec("P")
T = TypeVar("T")

PUNCH_HOLE = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE (fallocate(2))."""

Enter = Callable[[str, Path], Awaitable[None]]
"""Called with `open-content`, `read-content` or `write-content` before that happens to a file; may wait, and fail with
`ContentError`."""


async def _at_once(verb: str, path: Path) -> None:  # noqa: ARG001 - no fault was asked for
    return


class FileContents:
    """Implements `DiskContents`."""

    def __init__(self, enter: Enter = _at_once) -> None:
        self._enter = enter

    @asynccontextmanager
    async def reading(self, source: DiskSource) -> AsyncIterator[ContentReader]:
        async with self._opened(source, os.O_RDONLY) as file:
            yield file

    @asynccontextmanager
    async def writing(self, source: DiskSource) -> AsyncIterator[ContentWriter]:
        async with self._opened(source, os.O_RDWR) as file:
            yield file

    @asynccontextmanager
    async def _opened(self, source: DiskSource, mode: int) -> AsyncIterator[OpenFile]:
        if source.format is not DiskFormat.RAW or not isinstance(source.place, Path):
            raise ContentError(f"the simulator cannot read {source.format.value} disks, or disks elsewhere")
        await self._enter("open-content", source.place)
        descriptor = await _asked(os.open, source.place, mode | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            yield OpenFile(descriptor, source.place, (await _asked(os.fstat, descriptor)).st_size, self._enter)
        finally:
            await in_thread(os.close, descriptor)


class OpenFile:
    """Implements `ContentReader` and `ContentWriter`."""

    def __init__(self, descriptor: int, path: Path, size: int, enter: Enter) -> None:
        self.size = size
        self._descriptor = descriptor
        self._path = path
        self._enter = enter

    async def stretches(self) -> AsyncIterator[Stretch]:
        reached = 0
        while reached < self.size:
            data = await _asked(_seek, self._descriptor, reached, os.SEEK_DATA, self.size)
            if data > reached:
                yield Stretch(reached, data - reached, data=False)
            if data < self.size:
                reached = await _asked(_seek, self._descriptor, data, os.SEEK_HOLE, self.size)
                yield Stretch(data, reached - data, data=True)
            else:
                reached = data

    async def read(self, offset: int, length: int) -> bytes:
        self._check(offset, length)
        await self._enter("read-content", self._path)
        data = await _asked(os.pread, self._descriptor, length, offset)
        if len(data) != length:
            raise ContentError("the file became shorter")
        return data

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check(offset, len(memoryview(data).cast("B")))
        await self._enter("write-content", self._path)
        await _asked(_write, self._descriptor, data, offset)

    async def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)
        await self._enter("write-content", self._path)
        if length:
            await _asked(_punch, self._descriptor, offset, length)

    async def flush(self) -> None:
        await _asked(os.fdatasync, self._descriptor)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ContentError(f"{length} bytes at {offset} are not within a disk of {self.size} bytes")


async def _asked(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread, its failure a `ContentError`."""
    try:
        return await in_thread(function, *args, **kwargs)
    except OSError as error:
        kind = MediumFullError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ContentError
        raise kind(error.strerror or str(error)) from error


def _seek(descriptor: int, offset: int, whence: int, end: int) -> int:
    """The next data or hole, `end` where there is no more (lseek(2))."""
    try:
        return min(os.lseek(descriptor, offset, whence), end)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        raise


def _write(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _punch(descriptor: int, offset: int, length: int) -> None:
    """Make a hole, or write zeros where the file system knows no holes."""
    if _libc.fallocate(descriptor, PUNCH_HOLE, offset, length) == 0:
        return
    number = ctypes.get_errno()
    if number != errno.EOPNOTSUPP:
        raise OSError(number, os.strerror(number))
    blank = memoryview(bytes(min(length, 1 << 20)))
    for start in range(offset, offset + length, len(blank)):
        _write(descriptor, blank[: offset + length - start], start)
