"""The content of disks on its way into an archive: read, hashed, framed and sent side by side.

Some blocks are read ahead of the one that is being sent, so that medium, processors and network all work. What is held
is those blocks and nothing else, whatever the size of the disks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from domzero.engine.clock import Clock
from domzero.finish import finish, in_thread
from domzero.host.compression.protocol import Send
from domzero.host.contents.protocol import ContentError, ContentReader, DiskContents, Stretch
from domzero.host.hypervisor.spec import DiskSource
from domzero.toolstack.transfer.content_errors import content_failure
from domzero.toolstack.transfer.progress import Progress
from domzero.wire.xva.checksums import SHA1, checksum
from domzero.wire.xva.model import Bytes, Checksum
from domzero.wire.xva.writer import ArchiveWriter, BlockPlan, Span, is_zero

AHEAD: Final = 8
"""Blocks that are read and hashed while one is sent."""
SILENCE: Final = 5.0
"""Seconds after which something is sent even if there is nothing but zeros: clients give up on silent servers."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StreamedDisk:
    """A disk whose content goes into the archive under an identifier."""

    id: str
    source: DiskSource
    size: int


@dataclass(frozen=True, slots=True)
class _Read:
    """A block that was looked at; one that may be left out has no checksum."""

    span: Span
    data: Bytes
    checksum: Checksum | None


class DiskStreamer:
    """Sends the content of disks, one after the other."""

    def __init__(
        self, contents: DiskContents, clock: Clock, writer: ArchiveWriter, send: Send, progress: Progress,
    ) -> None:  # fmt: skip
        self._contents = contents
        self._clock = clock
        self._writer = writer
        self._send = send
        self._progress = progress
        self._sent = clock.monotonic()

    async def send(self, disk: StreamedDisk) -> None:
        """Send one disk. Raises SR_BACKEND_FAILURE when it cannot be read, and what `send` raises."""
        try:
            async with self._contents.reading(disk.source) as reader:
                await self._blocks(disk, reader)
        except ContentError as error:
            raise content_failure(error) from error

    async def _blocks(self, disk: StreamedDisk, reader: ContentReader) -> None:
        done = self._progress.done
        spans = _spans(BlockPlan(disk.size), reader.stretches(), disk.size)
        async with aclosing(spans), aclosing(_in_order(spans, lambda span: _look(reader, span))) as blocks:
            async for block in blocks:
                await self._block(disk.id, block)
                self._progress.reach(done + block.span.offset + block.span.length)
        self._progress.reach(done + disk.size)

    async def _block(self, id: str, block: _Read) -> None:
        known = block.checksum
        if known is None:
            if self._clock.monotonic() - self._sent < SILENCE:
                return
            known = await in_thread(checksum, SHA1, block.data)
        for piece in self._writer.block(id, block.span.number, block.data, known):
            await self._send(piece)
        self._sent = self._clock.monotonic()


async def _spans(plan: BlockPlan, stretches: AsyncIterator[Stretch], size: int) -> AsyncGenerator[Span, None]:
    """The blocks to be looked at; what the medium has beyond the disk's size is none of it."""
    async for stretch in stretches:
        if stretch.data and stretch.offset < size:
            for span in plan.data(stretch.offset, min(stretch.length, size - stretch.offset)):
                yield span
    for span in plan.finish():
        yield span


async def _look(reader: ContentReader, span: Span) -> _Read:
    data = await reader.read(span.offset, span.length)
    return await in_thread(_judge, span, data)


def _judge(span: Span, data: Bytes) -> _Read:
    if not span.required and is_zero(data):
        return _Read(span, data, None)
    return _Read(span, data, checksum(SHA1, data))


async def _in_order(
    spans: AsyncIterator[Span], work: Callable[[Span], Coroutine[Any, Any, Result]]
) -> AsyncGenerator[Result, None]:
    """The results of the work on each span, in order, `AHEAD` of them under way. All has ended when this is closed."""
    under_way: deque[asyncio.Task[Result]] = deque()
    try:
        async for span in spans:
            under_way.append(asyncio.create_task(work(span)))
            if len(under_way) >= AHEAD:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        if under_way:
            for task in under_way:
                task.cancel()
            await finish(_over(under_way))


async def _over(tasks: Iterable[asyncio.Task[Result]]) -> None:
    await asyncio.wait(tasks)
