"""Writing an archive of today's form (`export_vsn` 2): pieces to send, made from pieces of disks.

A block that is all zeros is left out, except a disk's first and last: with these a reader knows where every block
belongs. Nobody has to be kept alive with empty members: whoever has nothing to send for long sends a block of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from domzero.wire.xva.checksums import SUFFIXES
from domzero.wire.xva.model import BLOCK, Bytes, Checksum
from domzero.wire.xva.reader import MANIFEST_NAME
from domzero.wire.xva.tar import END, encode_header, padding

_ZEROS = bytes(BLOCK)


def is_zero(data: Bytes) -> bool:
    """Whether these bytes, at most `BLOCK` of them, are all zero. As fast as memory for bytes that are."""
    if not len(data):
        return True
    if data[0] or data[-1] or data[len(data) // 2]:
        return False
    # A view would be compared byte by byte; of bytes there is no copy.
    content = bytes(data) if isinstance(data, memoryview) else data
    return content == (_ZEROS if len(data) == BLOCK else _ZEROS[: len(data)])


@dataclass(frozen=True, slots=True)
class Span:
    """A block that has to be looked at: its number, and which bytes of the disk it holds."""

    number: int
    offset: int
    length: int
    required: bool
    """Whether it must be in the archive even if it is all zeros."""


class BlockPlan:
    """Which blocks of a disk of so many bytes to read, given the stretches with data from front to back.

    Holes cost nothing, however large. An empty disk has one empty block.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._next = 0
        self._last = max(0, (size - 1) // BLOCK)

    def data(self, offset: int, length: int) -> Iterator[Span]:
        """The blocks up to the end of a stretch with data that were not given before. Exhaust it."""
        if length <= 0:
            return
        if self._next == 0:
            yield self._take(0)
        start, end = offset // BLOCK, (offset + length - 1) // BLOCK
        for number in range(max(start, self._next), min(end, self._last) + 1):
            yield self._take(number)

    def finish(self) -> Iterator[Span]:
        """The rest, when there are no more stretches: the first and last block if they were not given yet."""
        if self._next == 0:
            yield self._take(0)
        if self._next <= self._last:
            yield self._take(self._last)

    def _take(self, number: int) -> Span:
        self._next = number + 1
        offset = number * BLOCK
        return Span(number, offset, min(BLOCK, self._size - offset), number in (0, self._last))


class ArchiveWriter:
    """Makes the bytes of an archive: first `manifest`, then `block` for each block (a disk at a time, numbers rising,
    starting with 0), then `end`. Send what each gives, in order. Raises `ValueError` for blocks out of order."""

    def __init__(self) -> None:
        self._pending = b""
        self._begun = False
        self._disk = ""
        self._number = -1

    def manifest(self, xml: bytes) -> tuple[Bytes, ...]:
        """The first member."""
        if self._begun:
            raise ValueError("an archive has one manifest, at its beginning")
        self._begun = True
        self._pending = padding(len(xml))
        return encode_header(MANIFEST_NAME, len(xml)), xml

    def block(self, disk: str, number: int, data: Bytes, checksum: Checksum) -> tuple[Bytes, Bytes]:
        """A block and its checksum. `data` itself is among what is given, not a copy: at most `BLOCK` bytes.

        Blocks before the last must be whole, the first too.
        """
        if not self._begun or len(data) > BLOCK:
            raise ValueError("a block is too large, or comes before the manifest")
        if disk != self._disk:
            self._disk, self._number = disk, -1
        if number <= self._number or (self._number < 0 and number):
            raise ValueError(f"block {number} of {disk} is out of order")
        self._number = number
        name = f"{disk}/{number:08d}"
        head = self._pending + encode_header(name, len(data))
        text = checksum.text.upper() if checksum.algorithm == "xxh64" else checksum.text
        content = text.encode("ascii")
        self._pending = b"".join((
            padding(len(data)),
            encode_header(name + SUFFIXES[checksum.algorithm], len(content)),
            content,
            padding(len(content)),
        ))  # fmt: skip
        return head, data

    def end(self) -> bytes:
        """What ends the archive."""
        pending, self._pending = self._pending, b""
        return pending + END
