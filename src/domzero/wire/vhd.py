"""VHD files as streams, without I/O: dynamic and differencing ones are written, these and fixed ones read.

Source: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0 (2006).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import pairwise
from uuid import UUID

from domzero.wire.disk_parts import (
    PIECE,
    Blank,
    Decoder,
    DiskFormatError,
    DiskSizeError,
    Piece,
    Put,
    Runs,
    Size,
    Skip,
    Span,
    Want,
)

FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
DYNAMIC = struct.Struct(">8sQQIIII16sII512s192s256x")
COOKIE, DYNAMIC_COOKIE = b"conectix", b"cxsparse"
FIXED, DYNAMIC_DISK, DIFFERENCING = 2, 3, 4
VERSION = 0x00010000
FEATURES = 2
"""Reserved, always set."""
CREATOR = b"tap\0"
"""XenServer's own, since readers take the size of its files as it is written."""
SECTOR = 512
BLOCK = 2 << 20
LARGEST = 2040 << 30
"""Bytes of the largest disk."""
UNUSED = 0xFFFFFFFF
EPOCH = 946684800
"""2000-01-01 in seconds since 1970: where VHD's clock begins."""
LOCATOR = struct.Struct(">4sIIIQ")
"""Code, bytes of its room, bytes of its text, nothing, and where it is."""
LOCATORS = (b"W2ru", b"MacX")
"""A relative path of Windows; a file's URL."""
BITMAP = b"\xff" * SECTOR
"""In front of a block of 2 MiB: all of its sectors are there."""
TABLE_LIMIT = 1 << 20
"""The most entries of a table that is read: those of the largest disk."""
SORTED = 1 << 16
"""Entries that are sorted at a time: as Python's numbers they take six times the room."""
BLOCK_LIMITS = range(4096, (256 << 20) + 1)
BY_GEOMETRY = (b"vpc ", b"vs  ")
"""Creators (Virtual PC and its server) whose disks are as large as the geometry says, whatever else is written; of all
others the size is as written."""
LARGEST_GEOMETRY = 65535 * 16 * 255
"""Sectors: a geometry at its end says only that the disk is large."""


def geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors per track of a disk, as the specification's appendix works them out."""
    sectors = min(size // SECTOR, LARGEST_GEOMETRY)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    per_track, cylinders_heads = 17, sectors // 17
    heads = max((cylinders_heads + 1023) // 1024, 4)
    for wider in (31, 63):
        if cylinders_heads >= heads * 1024 or heads > 16:
            per_track, heads = wider, 16
            cylinders_heads = sectors // per_track
    return cylinders_heads // heads, heads, per_track


def footer(size: int, kind: int, uuid: UUID, seconds: int) -> bytes:
    """The last sector of a file, and the first of a dynamic one. `seconds` are since 1970."""
    data_offset = SECTOR if kind != FIXED else (1 << 64) - 1
    stamp, made_by = max(0, seconds - EPOCH) & 0xFFFFFFFF, (CREATOR, VERSION, bytes(4))
    shape = (*geometry(size), kind, 0, uuid.bytes, 0)
    packed = bytearray(FOOTER.pack(COOKIE, FEATURES, VERSION, data_offset, stamp, *made_by, size, size, *shape))
    return _summed(packed, 64)


@dataclass(frozen=True, slots=True)
class Parent:
    """The file that has what a differencing one lacks: the identity in its footer, its name, when it was changed."""

    uuid: UUID
    name: str
    seconds: int


@dataclass(frozen=True, slots=True)
class DynamicVhd:
    """A dynamic file that is to be written: `blocks` says which blocks of 2 MiB it has.

    `size` is a multiple of 512; with a parent, blocks that it does not have are the parent's. Raises `DiskSizeError`
    for a disk that is too large.
    """

    size: int
    blocks: Runs
    uuid: UUID
    seconds: int
    parent: Parent | None = None

    def __post_init__(self) -> None:
        if self.size > LARGEST:
            raise DiskSizeError(self.size, LARGEST)

    @property
    def length(self) -> int:
        """Bytes of the whole file."""
        return self._first_block + self.blocks.units * (SECTOR + BLOCK) + SECTOR

    @property
    def _first_block(self) -> int:
        return self._table_offset + -(-self._entries * 4 // SECTOR) * SECTOR

    @property
    def _table_offset(self) -> int:
        return 3 * SECTOR + (2 * SECTOR if self.parent else 0)

    @property
    def _entries(self) -> int:
        return -(-self.size // BLOCK)

    def pieces(self) -> Iterator[Piece]:
        """The file from front to back."""
        kind = DIFFERENCING if self.parent else DYNAMIC_DISK
        last = footer(self.size, kind, self.uuid, self.seconds)
        yield last + self._header() + self._locators() + self._table()
        for first, count in self.blocks:
            for number in range(first, first + count):
                yield BITMAP
                yield Span(number * BLOCK, BLOCK)
        yield last

    def _header(self) -> bytes:
        above: tuple[bytes, int, int, bytes, bytes] = (bytes(16), 0, 0, b"", b"")
        if self.parent is not None:
            stamp = max(0, self.parent.seconds - EPOCH) & 0xFFFFFFFF
            places = zip(LOCATORS, self._locator_texts(), (3 * SECTOR, 4 * SECTOR), strict=True)
            entries = b"".join(LOCATOR.pack(code, SECTOR, len(text), 0, at) for code, text, at in places)
            above = (self.parent.uuid.bytes, stamp, 0, self.parent.name.encode("utf-16-be")[:512], entries)
        shape = (VERSION, self._entries, BLOCK, 0, *above)
        return _summed(bytearray(DYNAMIC.pack(DYNAMIC_COOKIE, (1 << 64) - 1, self._table_offset, *shape)), 36)

    def _locators(self) -> bytes:
        return b"".join(text.ljust(SECTOR, b"\0") for text in self._locator_texts()) if self.parent else b""

    def _locator_texts(self) -> tuple[bytes, bytes]:
        """The parent's name as Windows wants it, and as XenServer does, each in a sector of its own."""
        name = self.parent.name if self.parent else ""
        return f".\\{name}".encode("utf-16-le")[:SECTOR], f"file://./{name}".encode()[:SECTOR]

    def _table(self) -> bytes:
        table = array("I", bytes(self._first_block - self._table_offset))
        for number in range(len(table)):
            table[number] = UNUSED
        sector, step = self._first_block // SECTOR, (SECTOR + BLOCK) // SECTOR
        for first, count in self.blocks:
            table[first : first + count] = array("I", range(sector, sector + count * step, step))
            sector += count * step
        table.byteswap()
        return table.tobytes()


def decode_vhd(length: int | None, *, onto_parent: bool = False) -> Decoder:
    """Decode a dynamic or fixed file. `length` is the stream's in bytes, where it is known.

    A differencing file is taken only where it is put `onto_parent`: on a disk that has its parent's content already;
    nothing is said then of what is the parent's. Raises `DiskFormatError` for anything else, and for a file whose parts
    come in an order that takes going back; `DiskSizeError`.
    """
    start = yield Want(SECTOR)
    if start.startswith(COOKIE):
        yield from _decode_dynamic(start, length, onto_parent=onto_parent)
    else:
        yield from _decode_fixed(start, length)


def _decode_fixed(start: bytes, length: int | None) -> Decoder:
    """The disk's bytes and a footer behind them."""
    if length is not None:
        if length < 2 * SECTOR or length % SECTOR:
            raise DiskFormatError("it is no VHD file")
        yield Size(_checked(length - SECTOR))
    offset, kept = 0, start
    while data := (yield Want(PIECE, exact=False)):
        kept += data
        if len(kept) > SECTOR:
            yield Put(offset, memoryview(kept)[:-SECTOR])
            offset += len(kept) - SECTOR
            kept = kept[-SECTOR:]
    size, kind, _ = _read_footer(kept)
    if kind != FIXED or size != offset:
        raise DiskFormatError("its footer does not fit to what comes before it")


def _decode_dynamic(start: bytes, length: int | None, *, onto_parent: bool) -> Decoder:
    size, kind, header_offset = _read_footer(start)
    if kind == DIFFERENCING and not onto_parent:
        raise DiskFormatError("it has a parent: merge it with that before (vhd-util coalesce, Merge-VHD)")
    if kind not in (DYNAMIC_DISK, DIFFERENCING):
        raise DiskFormatError("its first sector is the footer of another kind of file")
    yield from _skip(SECTOR, header_offset)
    table_offset, entries, block = _read_header((yield Want(DYNAMIC.size)), size, kind)
    yield from _skip(header_offset + DYNAMIC.size, table_offset)
    yield Size(size)
    table = array("I")
    while len(table) < entries:
        table.frombytes((yield Want(min(PIECE, (entries - len(table)) * 4))))
    table.byteswap()
    position = table_offset + entries * 4
    if kind == DYNAMIC_DISK:
        yield from _blanks(table, size, block)
    for sector, number in _in_order(table, -(-size // block)):
        yield from _skip(position, sector * SECTOR)
        yield from _decode_block(number * block, min(block, size - number * block), block, blanks=kind == DYNAMIC_DISK)
        position = sector * SECTOR + _bitmap_length(block) + block
    yield from _skip(position, -(-position // SECTOR) * SECTOR if length is None else length - SECTOR)
    if _read_footer((yield Want(SECTOR)))[:2] != (size, kind):
        raise DiskFormatError("its first sector and its footer do not agree")


def _decode_block(offset: int, used: int, block: int, *, blanks: bool) -> Decoder:
    """One block: a map of its sectors, and its bytes, of which `used` are on the disk.

    Sectors that are not there are zeros where `blanks`, else nothing is said of them.
    """
    bits = yield Want(_bitmap_length(block))
    whole = bits.startswith(b"\xff" * (block // SECTOR // 8))
    done = 0
    while done < block:
        data = memoryview((yield Want(min(PIECE, block - done))))
        inside = data[: max(0, used - done)]
        if whole:
            if inside:
                yield Put(offset + done, inside)
        else:
            for first, count, there in _marked(bits, done // SECTOR, len(inside) // SECTOR):
                start, end = first * SECTOR, (first + count) * SECTOR
                if there:
                    yield Put(offset + start, inside[start - done : end - done])
                elif blanks:
                    yield Blank(offset + start, end - start)
        done += len(data)


def _marked(bits: bytes, first: int, count: int) -> Iterator[tuple[int, int, bool]]:
    """Runs of sectors that are alike: the first, how many, and whether they are there."""
    start, there = first, False
    for number in range(first, first + count):
        bit = bool(bits[number >> 3] & (0x80 >> (number & 7)))
        if bit != there and number > start:
            yield start, number - start, there
            start = number
        there = bit
    if first + count > start:
        yield start, first + count - start, there


def _blanks(table: array[int], size: int, block: int) -> Decoder:
    """The parts of the disk for which there is no block."""
    start = None
    for number in range(-(-size // block)):
        if table[number] == UNUSED:
            start = number if start is None else start
        elif start is not None:
            yield Blank(start * block, (number - start) * block)
            start = None
    if start is not None:
        yield Blank(start * block, size - start * block)


def _in_order(table: array[int], blocks: int) -> Iterator[tuple[int, int]]:
    """Sector and number of each block that there is, as they come in the file."""
    placed = array("Q", (table[number] << 32 | number for number in range(blocks) if table[number] != UNUSED))
    if all(before <= after for before, after in pairwise(placed)):
        return ((both >> 32, both & 0xFFFFFFFF) for both in placed)
    slices = [array("Q", sorted(placed[at : at + SORTED])) for at in range(0, len(placed), SORTED)]
    return ((both >> 32, both & 0xFFFFFFFF) for both in merge(*slices))


def _skip(position: int, target: int) -> Decoder:
    """Raises `DiskFormatError` where the target is behind us."""
    if target < position:
        raise DiskFormatError("its parts overlap, or come in an order that a stream cannot be read in")
    if target > position:
        yield Skip(target - position)


def _bitmap_length(block: int) -> int:
    return -(-block // SECTOR // 8 // SECTOR) * SECTOR or SECTOR


def _read_footer(data: bytes) -> tuple[int, int, int]:
    """Size, kind and where the next header is. Raises `DiskFormatError`, `DiskSizeError`."""
    if len(data) < SECTOR or not data.startswith(COOKIE):
        raise DiskFormatError("it is no VHD file")
    _, _, version, offset, _, creator, _, _, _, size, cylinders, heads, sectors, kind, _, _, _ = FOOTER.unpack(data)
    if version != VERSION or data[64:68] != _checksum(data, 64):
        raise DiskFormatError("its footer is damaged")
    shape = cylinders * heads * sectors
    if creator in BY_GEOMETRY and shape != LARGEST_GEOMETRY:
        size = shape * SECTOR
    return _checked(size), kind, offset


def _checked(size: int) -> int:
    if size > LARGEST:
        raise DiskSizeError(size, LARGEST)
    if not size or size % SECTOR:
        raise DiskFormatError(f"no VHD can have {size} bytes")
    return size


def _read_header(data: bytes, size: int, kind: int) -> tuple[int, int, int]:
    """Where the table is, its entries, and the size of a block. Raises `DiskFormatError`."""
    cookie, _, table, version, entries, block, _, parent, _, _, _, _ = DYNAMIC.unpack(data)
    if cookie != DYNAMIC_COOKIE or version != VERSION or data[36:40] != _checksum(data, 36):
        raise DiskFormatError("its dynamic disk header is damaged")
    if any(parent) != (kind == DIFFERENCING):
        raise DiskFormatError("what it says of a parent does not fit")
    if block not in BLOCK_LIMITS or block & (block - 1):
        raise DiskFormatError(f"blocks of {block} bytes are not possible")
    if entries > TABLE_LIMIT or entries * block < size:
        raise DiskFormatError("its table has the wrong length")
    return table, entries, block


def _summed(packed: bytearray, place: int) -> bytes:
    """With the checksum put into its place, which is blank."""
    packed[place : place + 4] = _checksum(packed, place)
    return bytes(packed)


def _checksum(data: bytes | bytearray, place: int) -> bytes:
    """The ones' complement of the sum of all bytes but the checksum's own four."""
    return struct.pack(">I", ~(sum(data) - sum(data[place : place + 4])) & 0xFFFFFFFF)
