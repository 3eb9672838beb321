"""Disks as streams, without I/O: what the codecs of disk formats tell whoever moves the bytes, and the two plainest.

A *decoder* is a generator of steps: `Want` and `Skip` ask for bytes of the stream, the others say what is on the disk.
Whoever drives it sends the bytes that `Want` asked for, and nothing for all others. Parts come in any order; nothing is
said of those that the stream leaves as they are.

An *encoder* is an iterator of pieces, which make the stream one after the other.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

PIECE = 1 << 20
"""The most bytes that a step wants or gives at once."""
CHUNK = struct.Struct("<QI")
"""The head of a part in XenServer's own framing: offset and length; zero and zero is the end."""


class DiskFormatError(Exception):
    """The stream is not what it should be; the text says why."""


class DiskSizeError(DiskFormatError):
    """The disk is larger than the format can hold. `limit` is the most bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a disk of {size} bytes is larger than the {limit} that the format can hold")
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Want:
    """The next `count` bytes, at most `PIECE`; where not `exact`, some of them, and none at the stream's end."""

    count: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Skip:
    """The next `count` bytes mean nothing."""

    count: int


@dataclass(frozen=True, slots=True)
class Size:
    """How many bytes the disk has. Comes before any part of it, if at all."""

    size: int


@dataclass(frozen=True, slots=True)
class Put:
    """These bytes are at this place of the disk."""

    offset: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Blank:
    """This part of the disk reads as zeros."""

    offset: int
    length: int


Step: TypeAlias = Want | Skip | Size | Put | Blank
Decoder: TypeAlias = Generator[Step, bytes, None]


def decode_raw(length: int | None) -> Decoder:
    """The disk's bytes from front to back. `length` is the stream's, None where it ends with the connection."""
    if length is not None:
        yield Size(length)
    offset = 0
    while data := (yield Want(PIECE, exact=False)):
        yield Put(offset, data)
        offset += len(data)


def decode_chunks() -> Decoder:
    """XenServer's framing of parts (`chunked`): offset, length and that many bytes; an end mark."""
    while True:
        offset, length = CHUNK.unpack((yield Want(CHUNK.size)))
        if not offset and not length:
            return
        while length:
            data = yield Want(min(length, PIECE), exact=False)
            if not data:
                raise DiskFormatError("the stream ends in the middle of a part")
            yield Put(offset, data)
            offset += len(data)
            length -= len(data)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the disk; what reaches past its end is zeros."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """So many zero bytes."""

    length: int


Piece: TypeAlias = bytes | Span | Zeros
Encoder: TypeAlias = Iterator[Piece]


class Runs:
    """Which parts of a disk hold data, in whole units of `unit` bytes, in bounded memory.

    Parts are added from front to back. Where they are too many, small holes between them count as data, as their zeros
    may.
    """

    LIMIT = 1 << 19

    def __init__(self, unit: int, size: int) -> None:
        self.unit = unit
        self._end = -(-size // unit) * unit
        self._grain = unit
        self._starts, self._ends = array("Q"), array("Q")

    def add(self, offset: int, length: int) -> None:
        """There is data in this part, which does not begin before the one added last."""
        if length <= 0:
            return
        start = offset // self._grain * self._grain
        end = min(-(-(offset + length) // self._grain) * self._grain, self._end)
        if self._ends and start <= self._ends[-1]:
            self._ends[-1] = max(end, self._ends[-1])
            return
        self._starts.append(start)
        self._ends.append(end)
        if len(self._starts) >= self.LIMIT:
            self._coarsen()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Number of the first unit and count of units of each run."""
        unit = self.unit
        return ((start // unit, (end - start) // unit) for start, end in zip(self._starts, self._ends, strict=True))

    @property
    def units(self) -> int:
        """How many units hold data."""
        return (sum(self._ends) - sum(self._starts)) // self.unit

    def _coarsen(self) -> None:
        while len(self._starts) > self.LIMIT // 2:
            self._grain *= 2
            runs = zip(self._starts, self._ends, strict=True)
            self._starts, self._ends = array("Q"), array("Q")
            for start, end in runs:
                self.add(start, end - start)
