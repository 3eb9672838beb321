"""The content of disks on its way out of an archive: received, checked and written side by side.

Some blocks are checked and written while the next ones arrive. What is held is those blocks and nothing else. A new
disk reads as zeros, so zeros are not written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from domzero.engine.errors import ApiError
from domzero.finish import finish, in_thread
from domzero.host.compression.protocol import Receive
from domzero.host.contents.protocol import ContentError, ContentWriter, DiskContents
from domzero.host.hypervisor.spec import DiskSource
from domzero.toolstack.transfer.content_errors import content_failure
from domzero.toolstack.transfer.pace import AHEAD, FLUSH_EVERY, GRAIN
from domzero.toolstack.transfer.progress import Progress
from domzero.wire.xva.checksums import Verifier
from domzero.wire.xva.model import BLOCK, Block, Bytes, ChecksumTable, DiskEnd, Event, LegacyData, ManifestXml
from domzero.wire.xva.reader import ArchiveReader

HELD: Final = AHEAD * BLOCK
"""Bytes of all blocks under way together: others write blocks of up to `MAX_BLOCK`."""
SECTOR: Final = 512
_ZEROS: Final = bytes(GRAIN)


class BlockMemory:
    """Memory of blocks that were written, for blocks to come: to get it anew takes longer than to fill it."""

    def __init__(self) -> None:
        self._spare: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """So many bytes, of any value."""
        if self._spare and len(self._spare[-1]) == size:
            return self._spare.pop()
        return bytearray(size)

    def give(self, data: Bytes) -> None:
        """Nobody will look at these any more. Blocks of unusual sizes are not worth keeping."""
        if isinstance(data, bytearray) and len(data) == BLOCK and len(self._spare) < AHEAD:
            self._spare.append(data)


async def events(receive: Receive, largest: int, memory: BlockMemory) -> AsyncGenerator[Event, None]:
    """What is in an uncompressed archive, in order, up to its end; what comes after that is not read.

    Blocks are in `memory`, which may be given them back. `largest` is how many bytes its description may have. Raises
    `XvaError`, IMPORT_ERROR for a larger one, and what `receive` raises.
    """
    reader = ArchiveReader(memory.take)
    described, taken = False, 0
    while piece := await receive():
        for event in reader.feed(piece):
            described = True
            yield event
        taken += len(piece)
        if not described and taken > largest:
            raise ApiError("IMPORT_ERROR", f"The archive's description is larger than {largest} bytes.")
        if reader.ended:
            break
    for event in reader.finish():
        yield event


@dataclass(frozen=True, slots=True)
class Target:
    """A disk that is to be filled."""

    source: DiskSource
    size: int


class DiskFiller:
    """Takes the events of an archive behind its manifest, and fills disks.

    `targets` are the disks by the names that the archive's files have; the content of those `passed_over` is not
    wanted. `close` has to be called however the work ends.
    """

    def __init__(
        self, contents: DiskContents, targets: Mapping[str, Target], passed_over: frozenset[str], progress: Progress,
        memory: BlockMemory, *, force: bool,
    ) -> None:  # fmt: skip
        self._contents = contents
        self._targets = targets
        self._passed_over = passed_over
        self._progress = progress
        self._memory = memory
        self._force = force
        self._verifier = Verifier()
        self._complete: set[str] = set()
        self._bytes_before = 0
        self._disk = ""
        self._writer: ContentWriter | None = None
        self._opened = AsyncExitStack()
        self._under_way: set[asyncio.Task[None]] = set()
        self._held = 0
        self._unflushed = 0
        self._flushing: asyncio.Task[None] | None = None
        self.first_sectors: dict[str, bytes] = {}
        """The first bytes of each disk that was met."""

    async def take(self, event: Event) -> None:
        """Raises `XvaError`, `ApiError` for what cannot be written."""
        match event:
            case Block():
                await self._data(event.disk, event.offset, event.data, event)
            case LegacyData():
                await self._data(event.disk, event.offset, event.data, None)
            case DiskEnd():
                await self._end(event)
            case ChecksumTable():
                self._verifier.listed(event)
            case ManifestXml():
                raise ApiError("IMPORT_ERROR", "The archive describes itself twice.")

    async def finish(self) -> None:
        """Everything came, or `force` was asked for: nothing is raised then.

        Raises IMPORT_ERROR_PREMATURE_EOF for a disk that did not come, IMPORT_ERROR_SOME_CHECKSUMS_FAILED.
        """
        await self._settle()
        if self._force:
            return
        if not self._targets.keys() <= self._complete:
            raise ApiError("IMPORT_ERROR_PREMATURE_EOF")
        if (verdict := self._verifier.verdict()) is not None:
            raise verdict

    async def close(self) -> None:
        """Let go of everything; what was taken is still written down with `force`."""
        await finish(self._close())

    async def _close(self) -> None:
        try:
            if self._force:
                await self._settle()
        finally:
            for task in self._under_way:
                task.cancel()
            if self._under_way:
                await asyncio.wait(self._under_way)
            await self._opened.aclose()

    async def _data(self, disk: str, offset: int, data: Bytes, block: Block | None) -> None:
        target = self._targets.get(disk)
        if target is None:
            if disk not in self._passed_over:
                raise ApiError("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", disk)
            if block is not None:
                await in_thread(self._verifier.check, block)
            return
        if offset + len(data) > target.size:
            raise ApiError("IMPORT_ERROR", f"The archive has more than the {target.size} bytes of the disk {disk}.")
        writer = await self._writer_of(disk, target)
        if offset == 0 and len(data):
            self.first_sectors[disk] = bytes(data[:SECTOR])
        await self._room(len(data))
        self._held += len(data)
        self._begin(self._store(writer, offset, data, block))
        self._unflushed += len(data)
        if self._unflushed >= FLUSH_EVERY and (self._flushing is None or self._flushing.done()):
            self._unflushed = 0
            self._flushing = self._begin(writer.flush())
        self._progress.reach(self._bytes_before + offset)

    async def _room(self, size: int) -> None:
        """Return when so many bytes more are not too much under way."""
        while self._under_way and (len(self._under_way) >= AHEAD or self._held + size > HELD):
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            self._reap()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        return task

    async def _writer_of(self, disk: str, target: Target) -> ContentWriter:
        if self._writer is None or self._disk != disk:
            await self._settle()
            await self._opened.aclose()
            try:
                self._writer = await self._opened.enter_async_context(self._contents.writing(target.source))
            except ContentError as error:
                raise content_failure(error) from error
            self._disk = disk
        return self._writer

    async def _store(self, writer: ContentWriter, offset: int, data: Bytes, block: Block | None) -> None:
        view = memoryview(data)
        for start, end in await in_thread(self._looked_at, data, block):
            await writer.write(offset + start, view[start:end])
        view.release()
        self._held -= len(data)
        self._memory.give(data)

    def _looked_at(self, data: Bytes, block: Block | None) -> list[tuple[int, int]]:
        if block is not None:
            self._verifier.check(block)
        return written_parts(data)

    async def _end(self, event: DiskEnd) -> None:
        target = self._targets.get(event.disk)
        if target is None:
            return
        await self._settle()
        if event.size == target.size:
            self._complete.add(event.disk)
        self._bytes_before += target.size
        self._progress.reach(self._bytes_before)

    async def _settle(self) -> None:
        """What was taken is on the medium."""
        while self._under_way:
            await asyncio.wait(self._under_way)
            self._reap()
        if self._writer is not None:
            try:
                await self._writer.flush()
            except ContentError as error:
                raise content_failure(error) from error
            self._writer = None
            await self._opened.aclose()

    def _reap(self) -> None:
        """Forget the writes that are done. Raises the first failure among them."""
        done = {task for task in self._under_way if task.done()}
        self._under_way -= done
        failures = [error for task in done if (error := task.exception()) is not None]
        for error in failures:
            if isinstance(error, ContentError):
                raise content_failure(error) from error
            raise error


def written_parts(data: Bytes) -> list[tuple[int, int]]:
    """Which parts (start, end) of a block are to be written, neighbours merged: those that are not all zeros."""
    parts: list[tuple[int, int]] = []
    view = memoryview(data)
    for start in range(0, len(view), GRAIN):
        end = min(start + GRAIN, len(view))
        # Comparing views goes byte by byte, comparing bytes does not.
        if not view[start] and not view[end - 1] and bytes(view[start:end]) == _ZEROS[: end - start]:
            continue
        if parts and parts[-1][1] == start:
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((start, end))
    return parts
