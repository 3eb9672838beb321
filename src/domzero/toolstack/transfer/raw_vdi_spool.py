"""qcow2 on its way in. Whoever writes such a file puts tables behind the data that they are about, so it cannot be read
from front to back: it is put down whole, in a file without a name, and read from there by QEMU's own tool.

The file is bounded by the disk that it claims to hold, and leaves room on its medium, where the host's state is. It has
no name so that a crash cannot leave it behind; and since nothing else is in its directory, nothing that its header
might name as a backing file is there to be found.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from io import FileIO
from pathlib import Path
from typing import Final

from domzero.engine.exchange import Peer
from domzero.finish import in_thread
from domzero.host.contents.protocol import ContentError, ContentReader, DiskContents, MediumFullError
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.toolstack.transfer.raw_vdi_import import Filler
from domzero.wire.disk_parts import PIECE, DiskFormatError, DiskSizeError
from domzero.wire.qcow2 import LARGEST, MAGIC

START: Final = struct.Struct(">4s20xQ")
"""What matters of a header here: the magic number and the disk's size."""
MARGIN: Final = 64 << 20
"""Bytes of tables that the smallest disk may have; a larger one has a thirty-second of its size in addition."""
ROOM: Final = 512 << 20
"""Bytes that stay free on the medium."""
LOOK_EVERY: Final = 64 << 20


class SpooledStream:
    """What a peer sends, as `raw_vdi_import.Stream` has it, but put down before the first part is known."""

    def __init__(
        self,
        contents: DiskContents,
        peer: Peer,
        descriptor: int,
        opened: AsyncExitStack,
        reached: Callable[[int], None],
    ) -> None:
        self._contents = contents
        self._peer = peer
        self._descriptor = descriptor
        self._opened = opened
        self._reached = reached
        self._reader: ContentReader | None = None

    async def size(self) -> int | None:
        """Take the whole stream; the size of the disk in it.

        Raises `PeerGoneError`, `DiskFormatError`, `ContentError`.
        """
        start = await self._peer.read_exactly(START.size)
        magic, claimed = START.unpack(start)
        if magic != MAGIC:
            raise DiskFormatError("it is no qcow2 file")
        if claimed > LARGEST:
            raise DiskSizeError(claimed, LARGEST)
        await self._take(start, claimed + claimed // 32 + MARGIN)
        place = Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")
        self._reader = await self._opened.enter_async_context(
            self._contents.reading(DiskSource(place, DiskFormat.QCOW2))
        )
        return self._reader.size

    async def _take(self, start: bytes, limit: int) -> None:
        data, taken, looked = start, 0, 0
        while data:
            taken += len(data)
            if taken > limit:
                raise DiskFormatError("it is larger than a file with such a disk can be")
            if taken >= looked:
                await in_thread(_leave_room, self._descriptor)
                looked = taken + LOOK_EVERY
            await in_thread(_append, self._descriptor, data)
            self._reached(taken)
            data = await self._peer.read(PIECE)

    async def fill(self, filler: Filler) -> None:
        """Have all of it on the medium."""
        assert self._reader is not None
        async for stretch in self._reader.stretches():
            if not stretch.data:
                await filler.blank(stretch.offset, stretch.length)
                continue
            end = stretch.offset + stretch.length
            for offset in range(stretch.offset, end, PIECE):
                await filler.put(offset, await self._reader.read(offset, min(PIECE, end - offset)))
        await filler.settle()


@asynccontextmanager
async def spooled(
    contents: DiskContents, peer: Peer, directory: Path, reached: Callable[[int], None]
) -> AsyncIterator[SpooledStream]:
    """A stream with a file in that directory, which is made where it is not there; the file is gone afterwards."""
    with await in_thread(_nameless, directory) as file:
        async with AsyncExitStack() as opened:
            yield SpooledStream(contents, peer, file.fileno(), opened, reached)


def _nameless(directory: Path) -> FileIO:
    directory.mkdir(mode=0o700, exist_ok=True)
    return tempfile.TemporaryFile(dir=directory, buffering=0)


def _append(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        kind = MediumFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else ContentError
        raise kind(f"the upload could not be put down: {error.strerror}") from error


def _leave_room(descriptor: int) -> None:
    """Raises `MediumFullError` when the host's state would have too little room."""
    medium = os.fstatvfs(descriptor)
    if medium.f_bavail * medium.f_frsize < ROOM + LOOK_EVERY:
        raise MediumFullError("there is no room on the host to put the upload down")
