"""Reading an archive (uncompressed) as it comes, in memory that does not grow.

What a member must be called, and where its bytes belong on the disk, is XenServer's format: numbers rise, a skipped
number stands for as many zeros as the disk's first block has bytes, and a member without bytes only kept a connection
alive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from domzero.wire.xva.checksums import DIGITS, SUFFIXES
from domzero.wire.xva.inflate import Inflater
from domzero.wire.xva.model import (
    BLOCK,
    MAX_BLOCK,
    MAX_DISKS,
    MAX_MANIFEST,
    Block,
    Bytes,
    Checksum,
    ChecksumTable,
    DiskEnd,
    Event,
    LegacyData,
    ManifestXml,
    premature_end,
    unexpected_file,
    unreadable,
)
from domzero.wire.xva.table import TableReader
from domzero.wire.xva.tar import Member, Piece, TarReader

MANIFEST_NAME = "ova.xml"
TABLE_NAME = "checksum.xml"
MAX_OFFSET = 1 << 60

_BLOCK = re.compile(r"(Ref:[0-9]{1,10})/([0-9]{8}|[1-9][0-9]{8,10})", re.ASCII)
_CHUNK = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.:-]{0,99})/chunk-([0-9]{9})\.gz", re.ASCII)
_BY_SUFFIX = {suffix: algorithm for algorithm, suffix in SUFFIXES.items()}


@dataclass(slots=True)
class _Disk:
    """Where in a disk the reader is: the number that was met last, and where the next block would begin."""

    name: str
    number: int = -1
    first: int = 0
    offset: int = 0


class ArchiveReader:
    """Takes an archive in pieces of any size. Holds the manifest until it is complete, then at most one block.

        for event in reader.feed(data): ...
        reader.finish()

    Exhaust the iterator before the next feed. A block is reported when its checksum was read. Raises `XvaError`.
    `memory` gives room for so many bytes of a block.
    """

    def __init__(self, memory: Callable[[int], bytearray] = bytearray) -> None:
        self._memory = memory
        self._tar = TarReader()
        self._manifest_read = False
        self._disks: set[str] = set()
        self._disk: _Disk | None = None
        self._waiting: Block | None = None
        self._legacy = False
        self._member: _Receiver | None = None

    @property
    def ended(self) -> bool:
        """Whether the archive's end was met. What else comes need not be fed."""
        return self._tar.ended

    def feed(self, data: Bytes) -> Iterator[Event]:
        """What these bytes bring, in order."""
        for event in self._tar.feed(data):
            if isinstance(event, Member):
                yield from self._begin(event)
            elif self._member is None:
                continue
            elif isinstance(event, Piece):
                yield from self._member.feed(event.data)
            else:
                member, self._member = self._member, None
                yield from member.end()

    def finish(self) -> Iterator[Event]:
        """Say that nothing follows, and take the last events. Raises `XvaError` unless the archive is complete."""
        self._tar.finish()
        if not self._manifest_read:
            raise premature_end()
        yield from self._settle()
        yield from self._leave()

    def _begin(self, member: Member) -> Iterator[Event]:
        name = member.name
        if not self._manifest_read:
            if name != MANIFEST_NAME:
                raise unexpected_file(MANIFEST_NAME, name)
            self._manifest_read = True
            self._member = _Manifest(member)
        elif self._waiting is not None and (algorithm := self._checksum_of(self._waiting, name)) is not None:
            self._member = _ChecksumFile(member, algorithm, self._waiting)
            self._waiting = None
        else:
            yield from self._settle()
            yield from self._file(member)

    def _file(self, member: Member) -> Iterator[Event]:
        if match := _BLOCK.fullmatch(member.name):
            yield from self._enter(match[1])
            self._member = self._block(member, int(match[2]))
        elif match := _CHUNK.fullmatch(member.name):
            yield from self._enter(match[1])
            self._member = self._chunk(member, int(match[2]))
        elif member.name == TABLE_NAME:
            yield from self._leave()
            self._member = _Table()
        else:
            raise unexpected_file(self._expected(), member.name)

    def _enter(self, name: str) -> Iterator[Event]:
        """Begin with a disk, unless this is the one that the member before belonged to."""
        if self._disk is not None and self._disk.name == name:
            return
        expected = self._expected()
        yield from self._leave()
        if name in self._disks:
            raise unexpected_file(expected, name)
        if len(self._disks) >= MAX_DISKS:
            raise unreadable(f"the archive contains more than {MAX_DISKS} disks")
        self._disks.add(name)
        self._disk = _Disk(name)

    def _leave(self) -> Iterator[Event]:
        disk, self._disk = self._disk, None
        if disk is not None:
            yield DiskEnd(disk.name, disk.offset)

    def _settle(self) -> Iterator[Event]:
        """Report a block that no checksum followed."""
        block, self._waiting = self._waiting, None
        if block is not None:
            yield block

    def _expected(self) -> str:
        return f"{self._disk.name}/{self._disk.number + 1:08d}" if self._disk is not None else "Ref:0/00000000"

    @staticmethod
    def _checksum_of(block: Block, name: str) -> str | None:
        base = block.name
        return _BY_SUFFIX.get(name[len(base) :]) if name.startswith(base) else None

    def _block(self, member: Member, number: int) -> _Receiver:
        disk = self._disk
        assert disk is not None
        if number <= disk.number or (disk.number < 0 and number):
            raise unexpected_file(self._expected(), member.name)
        if member.size > MAX_BLOCK:
            raise unreadable(f"{member.name} is larger than {MAX_BLOCK} bytes")
        disk.offset += (number - disk.number - 1) * (disk.first or BLOCK)
        block = _BlockFile(self, self._memory(member.size), disk.name, number, disk.offset)
        disk.number = number
        disk.first = disk.first or member.size
        disk.offset += member.size
        if disk.offset > MAX_OFFSET:
            raise unreadable(f"{member.name} is beyond the end of any disk")
        return block

    def _chunk(self, member: Member, number: int) -> _Receiver:
        disk = self._disk
        assert disk is not None
        if number != disk.number + 1:
            raise unexpected_file(f"{disk.name}/chunk-{disk.number + 1:09d}.gz", member.name)
        disk.number = number
        return _Chunk(disk)

    def received(self, block: Block) -> None:
        """A block's bytes are complete (for `_BlockFile`)."""
        self._waiting = block


class _Receiver(Protocol):
    """Takes the bytes of one member."""

    def feed(self, data: memoryview) -> Iterator[Event]: ...

    def end(self) -> Iterator[Event]: ...


class _Manifest:
    def __init__(self, member: Member) -> None:
        if member.size > MAX_MANIFEST:
            raise unreadable(f"{member.name} is larger than {MAX_MANIFEST} bytes")
        self._content = bytearray()

    def feed(self, data: memoryview) -> Iterator[Event]:
        self._content += data
        return iter(())

    def end(self) -> Iterator[Event]:
        yield ManifestXml(bytes(self._content))


class _BlockFile:
    def __init__(self, reader: ArchiveReader, content: bytearray, disk: str, number: int, offset: int) -> None:
        self._reader = reader
        self._disk, self._number, self._offset = disk, number, offset
        self._content = content
        self._filled = 0

    def feed(self, data: memoryview) -> Iterator[Event]:
        end = self._filled + len(data)
        self._content[self._filled : end] = data
        self._filled = end
        return iter(())

    def end(self) -> Iterator[Event]:
        self._reader.received(Block(self._disk, self._number, self._offset, self._content, None))
        return iter(())


class _ChecksumFile:
    def __init__(self, member: Member, algorithm: str, block: Block) -> None:
        if member.size > 128:
            raise unreadable(f"{member.name} holds no checksum")
        self._name, self._algorithm, self._block = member.name, algorithm, block
        self._content = bytearray()

    def feed(self, data: memoryview) -> Iterator[Event]:
        self._content += data
        return iter(())

    def end(self) -> Iterator[Event]:
        text = self._content.decode("ascii", "replace").strip().lower()
        if not re.fullmatch(rf"[0-9a-f]{{{DIGITS[self._algorithm]}}}", text, re.ASCII):
            raise unreadable(f"{self._name} holds no checksum")
        block = self._block
        yield Block(block.disk, block.number, block.offset, block.data, Checksum(self._algorithm, text))


class _Chunk:
    def __init__(self, disk: _Disk) -> None:
        self._disk = disk
        self._inflater = Inflater()

    def feed(self, data: memoryview) -> Iterator[Event]:
        for piece in self._inflater.feed(data):
            offset = self._disk.offset
            self._disk.offset += len(piece)
            yield LegacyData(self._disk.name, offset, piece)

    def end(self) -> Iterator[Event]:
        self._inflater.finish()
        return iter(())


class _Table:
    def __init__(self) -> None:
        self._table = TableReader()

    def feed(self, data: memoryview) -> Iterator[Event]:
        rows = self._table.feed(bytes(data))
        if rows:
            yield ChecksumTable(rows)

    def end(self) -> Iterator[Event]:
        rows = self._table.finish()
        if rows:
            yield ChecksumTable(rows)
