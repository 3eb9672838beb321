"""Bytes of a disk on their way in: decoded, gathered, and written side by side; what is zero is not written out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Final, TypeAlias

from domzero.engine.exchange import Peer
from domzero.finish import finish
from domzero.host.contents.protocol import ContentWriter
from domzero.toolstack.transfer.pace import AHEAD, FLUSH_EVERY, GRAIN
from domzero.wire.disk_parts import PIECE, Blank, Decoder, DiskFormatError, Put, Size, Skip, Step, Want

ENOUGH: Final = PIECE // 2
"""Bytes that are worth a request to the medium."""
TURNS: Final = 256
"""Steps after which others get a turn: parts that are blank anyway wait for nothing, and a file may have a million."""
_ZEROS: Final = bytes(GRAIN)

Bytes: TypeAlias = bytes | bytearray | memoryview


class TooLongError(Exception):
    """The stream has something behind the disk's end. `needed` is how many bytes the disk would have to have."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"the disk would have to have {needed} bytes")
        self.needed = needed


class Filler:
    """Writes parts of a disk as they come. `close` has to be called however the work ends.

    `size` is the disk's; where it `is_blank`, zeros need no writing. What is put later counts where parts overlap.
    Methods raise `ContentError` as soon as a write failed, `TooLongError`.
    """

    def __init__(self, writer: ContentWriter, size: int, *, is_blank: bool) -> None:
        self._writer = writer
        self._size = size
        self._is_blank = is_blank
        self._gathered = bytearray()
        self._gathered_at = 0
        self._zeros = (0, 0)
        self._reached = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._unflushed = 0
        self._flushing: asyncio.Task[None] | None = None

    async def put(self, offset: int, data: Bytes) -> None:
        """These bytes are there."""
        await self._go_to(offset, len(data))
        if self._gathered and (
            offset != self._gathered_at + len(self._gathered) or len(self._gathered) + len(data) > PIECE
        ):
            await self._write_gathered()
        if not self._gathered and len(data) >= ENOUGH:
            await self._write(offset, data)
            return
        if not self._gathered:
            self._gathered_at = offset
        self._gathered += data
        if len(self._gathered) >= ENOUGH:
            await self._write_gathered()

    async def blank(self, offset: int, length: int) -> None:
        """This part reads as zeros."""
        await self._go_to(offset, length)
        await self._zero(offset, offset + length)

    async def settle(self) -> None:
        """Everything is on the medium."""
        await self._let_go()
        await self._writer.flush()

    async def close(self) -> None:
        """Stop writing."""
        for task in self._under_way:
            task.cancel()
        await finish(self._over())

    async def _over(self) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._under_way.clear()

    async def _go_to(self, offset: int, length: int) -> None:
        """Going back waits for what was written before: it might be the same place."""
        end = offset + length
        if end > self._size:
            raise TooLongError(end)
        if offset < self._reached:
            await self._let_go()
        self._reached = end

    async def _let_go(self) -> None:
        await self._write_gathered()
        await self._write_zeros()
        while self._under_way:
            await self._wait()

    async def _write_gathered(self) -> None:
        if self._gathered:
            data, self._gathered = self._gathered, bytearray()
            await self._write(self._gathered_at, data)

    async def _write(self, offset: int, data: Bytes) -> None:
        view = memoryview(data)
        for start, end, is_zero in _parts(data):
            if is_zero:
                await self._zero(offset + start, offset + end)
            else:
                await self._start(self._writer.write(offset + start, view[start:end]))
                self._unflushed += end - start
        if self._unflushed >= FLUSH_EVERY and (self._flushing is None or self._flushing.done()):
            self._unflushed = 0
            self._flushing = await self._start(self._writer.flush())

    async def _zero(self, start: int, end: int) -> None:
        if self._is_blank:
            return
        if start != self._zeros[1]:
            await self._write_zeros()
            self._zeros = (start, start)
        self._zeros = (self._zeros[0], end)

    async def _write_zeros(self) -> None:
        start, end = self._zeros
        self._zeros = (0, 0)
        if end > start:
            await self._start(self._writer.zero(start, end - start))

    async def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        while len(self._under_way) >= AHEAD:
            await self._wait()
        return task

    async def _wait(self) -> None:
        done, self._under_way = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        for failure in [task.exception() for task in done]:
            if failure is not None:
                raise failure


class Stream:
    """What a peer sends, decoded. Methods raise `PeerGoneError`, `DiskFormatError`."""

    def __init__(self, decoder: Decoder, peer: Peer, reached: Callable[[int], None]) -> None:
        self._decoder = decoder
        self._peer = peer
        self._reached = reached
        self._taken = 0
        self._step: Step | None = next(decoder)

    async def size(self) -> int | None:
        """The size of the disk, as far as the stream says it before its first part."""
        while isinstance(self._step, Want | Skip):
            await self._go_on()
        return self._step.size if isinstance(self._step, Size) else None

    async def fill(self, filler: Filler) -> None:
        """Have all of it on the medium. Raises what the filler raises, too."""
        for number in count():
            if number % TURNS == 0:
                await asyncio.sleep(0)
            match self._step:
                case None:
                    break
                case Put(offset, data):
                    await filler.put(offset, data)
                case Blank(offset, length):
                    await filler.blank(offset, length)
            await self._go_on()
        await filler.settle()

    async def _go_on(self) -> None:
        """Give the decoder what it asked for; its next step."""
        answer = b""
        match self._step:
            case Want(wanted, exact):
                answer = await (self._peer.read_exactly(wanted) if exact else self._peer.read(wanted))
                self._advance(len(answer))
            case Skip(passed):
                await self._skip(passed)
        try:
            self._step = self._decoder.send(answer)
        except StopIteration:
            self._step = None

    async def _skip(self, count: int) -> None:
        while count:
            data = await self._peer.read(min(count, PIECE))
            if not data:
                raise DiskFormatError("the stream ends too soon")
            count -= len(data)
            self._advance(len(data))

    def _advance(self, count: int) -> None:
        self._taken += count
        self._reached(self._taken)


def _parts(data: Bytes) -> Iterator[tuple[int, int, bool]]:
    """Start, end and whether all is zero, neighbours of a kind merged."""
    start, known = 0, False
    for at in range(0, len(data), GRAIN):
        is_zero = _is_zero(data, at, min(at + GRAIN, len(data)))
        if is_zero != known and at > start:
            yield start, at, known
            start = at
        known = is_zero
    if len(data) > start:
        yield start, len(data), known


def _is_zero(data: Bytes, start: int, end: int) -> bool:
    """Most data is seen not to be zero at one of three places."""
    if data[start] or data[end - 1] or data[(start + end) // 2]:
        return False
    return bytes(data[start:end]) == (_ZEROS if end - start == GRAIN else _ZEROS[: end - start])
