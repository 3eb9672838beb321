"""`DiskContents` by QEMU's storage daemon: every place and format that a machine's disk may have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from domzero.host.contents.nbd import Connection
from domzero.host.contents.protocol import ContentError, ContentReader, ContentWriter, Stretch
from domzero.host.contents.tool import PATIENCE, opened
from domzero.host.hypervisor.spec import DiskSource
from domzero.wire.nbd import LENGTH_LIMIT, RANGE_LIMIT, ZERO, Export, ExportFlag


class QemuContents:
    """Implements `DiskContents`. `runtime` is a directory of ours alone, for sockets.

    `patience` is how many seconds a medium may take over one request.
    """

    def __init__(self, runtime: Path, *, patience: float = PATIENCE) -> None:
        self._runtime = runtime
        self._patience = patience

    @asynccontextmanager
    async def reading(self, source: DiskSource) -> AsyncIterator[ContentReader]:
        async with opened(source, self._runtime, writable=False, patience=self._patience) as disk:
            yield QemuReader(disk.connection, disk.export)

    @asynccontextmanager
    async def writing(self, source: DiskSource) -> AsyncIterator[ContentWriter]:
        async with opened(source, self._runtime, writable=True, patience=self._patience) as disk:
            if disk.export.flags & ExportFlag.READ_ONLY:
                raise ContentError("the disk can only be read")
            yield QemuWriter(disk.connection, disk.export)


class QemuReader:
    """Implements `ContentReader`."""

    def __init__(self, connection: Connection, export: Export) -> None:
        self.size = export.size
        self._connection = connection
        self._knows_zeros = export.context is not None

    async def stretches(self) -> AsyncIterator[Stretch]:
        """A disk that grew meanwhile is told of up to the size it had."""
        start, reached, data = 0, 0, True
        while reached < self.size:
            length = min(RANGE_LIMIT, self.size - reached)
            found = await self._connection.extents(reached, length) if self._knows_zeros else [(length, 0)]
            for extent, flags in found:
                holds_data = not flags & ZERO
                if holds_data != data and reached > start:
                    yield Stretch(start, reached - start, data)
                    start = reached
                data = holds_data
                reached = min(reached + extent, self.size)
        if reached > start:
            yield Stretch(start, reached - start, data)

    async def read(self, offset: int, length: int) -> bytes | bytearray:
        _check(self.size, offset, length)
        if length <= LENGTH_LIMIT:
            return await self._connection.read(offset, length)
        parts = [await self._connection.read(start, size) for start, size in _cut(offset, length, LENGTH_LIMIT)]
        return b"".join(parts)


class QemuWriter:
    """Implements `ContentWriter`."""

    def __init__(self, connection: Connection, export: Export) -> None:
        self.size = export.size
        self._connection = connection
        self._knows_zeros = export.context is not None
        self._can_zero = bool(export.flags & ExportFlag.SEND_WRITE_ZEROES)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        _check(self.size, offset, len(view))
        for start, size in _cut(offset, len(view), LENGTH_LIMIT):
            await self._connection.write(start, view[start - offset : start - offset + size])

    async def zero(self, offset: int, length: int) -> None:
        """What reads as zeros already is left alone: VHD would take room for zeros that are written."""
        _check(self.size, offset, length)
        if not self._knows_zeros:
            await self._write_zeros(offset, length)
            return
        reached, end = offset, offset + length
        while reached < end:
            for extent, flags in await self._connection.extents(reached, min(RANGE_LIMIT, end - reached)):
                size = min(extent, end - reached)
                if size > 0 and not flags & ZERO:
                    await self._write_zeros(reached, size)
                reached += size

    async def _write_zeros(self, offset: int, length: int) -> None:
        if self._can_zero:
            for start, size in _cut(offset, length, RANGE_LIMIT):
                await self._connection.zero(start, size)
            return
        blank = bytes(min(length, 1 << 20))
        for start, size in _cut(offset, length, len(blank)):
            await self._connection.write(start, memoryview(blank)[:size])

    async def flush(self) -> None:
        await self._connection.flush()


def _check(disk: int, offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > disk:
        raise ContentError(f"{length} bytes at {offset} are not within a disk of {disk} bytes")


def _cut(offset: int, length: int, most: int) -> list[tuple[int, int]]:
    """Offsets and lengths of parts that are no longer than that."""
    return [(start, min(most, offset + length - start)) for start in range(offset, offset + length, max(most, 1))]
