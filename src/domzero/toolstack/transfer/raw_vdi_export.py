"""A disk's bytes on their way out, in one of the formats: what is sent is known before the first byte is.

Some blocks are read ahead of the one that is being sent; what is held is those, and the map of what the disk has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice
from typing import Final, TypeAlias
from uuid import UUID

from domzero.finish import finish
from domzero.host.contents.protocol import ContentReader
from domzero.wire.disk_parts import PIECE, Piece, Runs, Span, Zeros
from domzero.wire.qcow2 import Qcow2, cluster_size
from domzero.wire.vhd import BLOCK, DynamicVhd, Parent

AHEAD: Final = 8
"""Pieces that are read while one is sent."""
COMPARED: Final = 4
"""Blocks of two disks that are read at a time to be compared."""
SECTOR: Final = 512
BLANK: Final = bytes(PIECE)

Bytes: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Image:
    """What is to be sent: so many bytes, from front to back."""

    length: int
    pieces: AsyncIterator[Piece]


@dataclass(frozen=True, slots=True)
class Disk:
    """An opened disk that is to be sent. `size` may be less than what the medium has; `seconds` are since 1970."""

    reader: ContentReader
    size: int
    uuid: UUID
    seconds: int


Layout: TypeAlias = Callable[[Disk], Awaitable[Image]]


async def raw_image(disk: Disk) -> Image:
    """The disk's bytes from front to back."""
    return Image(disk.size, _raw(disk))


async def vhd_image(disk: Disk) -> Image:
    """A dynamic VHD. Raises `DiskSizeError`."""
    size = _whole_sectors(disk.size)
    image = DynamicVhd(size, await _runs(disk, BLOCK), disk.uuid, disk.seconds)
    return Image(image.length, _each(image.pieces()))


async def difference_image(disk: Disk, base: Disk) -> Image:
    """A differencing VHD: the blocks in which a disk is not like another, which is not larger; the other is its parent.

    Nobody keeps account of what was written since, so both are read. Raises `DiskSizeError`, `ContentError`.
    """
    size, changed = _whole_sectors(disk.size), Runs(BLOCK, disk.size)
    blocks = _blocks(await _runs(disk, BLOCK), await _runs(base, BLOCK))
    while batch := list(islice(blocks, COMPARED)):
        found = await asyncio.gather(*(_differs(disk, base, number) for number in batch))
        for number, differs in zip(batch, found, strict=True):
            if differs:
                changed.add(number * BLOCK, BLOCK)
    parent = Parent(base.uuid, f"{base.uuid}.vhd", base.seconds)
    image = DynamicVhd(size, changed, disk.uuid, disk.seconds, parent)
    return Image(image.length, _each(image.pieces()))


def _blocks(*disks: Runs) -> Iterator[int]:
    """The numbers of the blocks that any of them has, once each, in order."""
    numbers = ((number for first, count in runs for number in range(first, first + count)) for runs in disks)
    return (number for number, _ in groupby(merge(*numbers)))


async def _differs(disk: Disk, base: Disk, number: int) -> bool:
    """Whether a block is not the same on both."""
    for start in range(number * BLOCK, (number + 1) * BLOCK, PIECE):
        span = Span(start, PIECE)
        one, other = await asyncio.gather(_read(disk, span), _read(base, span))
        if one != other:
            return True
    return False


async def qcow2_image(disk: Disk) -> Image:
    """A qcow2 file of its own, without compression. Raises `DiskSizeError`."""
    size = _whole_sectors(disk.size)
    image = Qcow2(size, await _runs(disk, cluster_size(size)))
    return Image(image.length, _each(image.pieces()))


def _whole_sectors(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


async def _raw(disk: Disk) -> AsyncIterator[Piece]:
    async for stretch in disk.reader.stretches():
        length = min(stretch.length, disk.size - stretch.offset)
        if length <= 0:
            return
        yield Span(stretch.offset, length) if stretch.data else Zeros(length)


async def _runs(disk: Disk, unit: int) -> Runs:
    runs = Runs(unit, disk.size)
    async for stretch in disk.reader.stretches():
        if stretch.data:
            runs.add(stretch.offset, min(stretch.length, disk.size - stretch.offset))
    return runs


async def _each(pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
    for piece in pieces:
        yield piece


async def send(image: Image, disk: Disk, write: Callable[[Bytes], Awaitable[None]]) -> None:
    """Send it all. Raises `ContentError`, and what `write` raises."""
    async with aclosing(_read_ahead(_cut(image.pieces), disk)) as blocks:
        async for block in blocks:
            await write(block)


async def _cut(pieces: AsyncIterator[Piece]) -> AsyncIterator[Bytes | Span]:
    """Pieces of at most `PIECE` bytes from the disk, blank ones made."""
    async for piece in pieces:
        if isinstance(piece, Span):
            for start in range(piece.offset, piece.offset + piece.length, PIECE):
                yield Span(start, min(PIECE, piece.offset + piece.length - start))
        elif isinstance(piece, Zeros):
            for left in range(piece.length, 0, -PIECE):
                yield BLANK if left >= PIECE else BLANK[:left]
        else:
            yield piece


async def _read_ahead(pieces: AsyncIterator[Bytes | Span], disk: Disk) -> AsyncGenerator[Bytes, None]:
    """The bytes, in order, some of them being read already. All reading has ended when this is closed."""
    waiting: deque[asyncio.Task[Bytes] | Bytes] = deque()
    try:
        async for piece in pieces:
            waiting.append(asyncio.create_task(_read(disk, piece)) if isinstance(piece, Span) else piece)
            if len(waiting) > AHEAD:
                yield await _settled(waiting.popleft())
        while waiting:
            yield await _settled(waiting.popleft())
    finally:
        tasks = [each for each in waiting if isinstance(each, asyncio.Task)]
        for task in tasks:
            task.cancel()
        if tasks:
            await finish(_over(tasks))


async def _over(tasks: list[asyncio.Task[Bytes]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _settled(waiting: asyncio.Task[Bytes] | Bytes) -> Bytes:
    return await waiting if isinstance(waiting, asyncio.Task) else waiting


async def _read(disk: Disk, span: Span) -> Bytes:
    """A part of the disk; past its end there are zeros."""
    there = max(0, min(span.length, disk.size - span.offset))
    if not there:
        return BLANK[: span.length]
    data = await disk.reader.read(span.offset, there)
    return data if there == span.length else bytes(data) + bytes(span.length - there)
