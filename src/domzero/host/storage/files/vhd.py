"""What the footer and header of a VHD file say, read without opening the image.

The layout is in Microsoft's "Virtual Hard Disk Image Format Specification" (2006). A file is refused unless all that it
claims fits into it and into what QEMU's `vpc` driver reads in the same way.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from domzero.host.storage.files.formats import VHD
from domzero.host.storage.files.qcow2 import BadImageError

FOOTER = struct.Struct(">8sIIQI4sIIQQHBBII16sB427x")
DYNAMIC = struct.Struct(">8sQQIIII16sII512s192s256x")
COOKIE, DYNAMIC_COOKIE = b"conectix", b"cxsparse"
FIXED_DISK, DYNAMIC_DISK, DIFFERENCING_DISK = 2, 3, 4
VERSION = 0x00010000
TABLE_LIMIT = 4 << 20
"""Entries of a block allocation table; the largest disk of ours has a quarter of that."""
BLOCK_LIMITS = range(4096, (256 << 20) + 1)
EXACT = (b"win ", b"qem2", b"d2v ", b"tap\0")
"""Creators of files for which QEMU takes the size as written; for all others it takes what the geometry makes."""
LARGEST_GEOMETRY = 65535 * 16 * 255
"""Sectors: a geometry at its end says only that the disk is large."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What matters of a footer."""

    data_offset: int
    virtual_size: int
    kind: int


def read_virtual_size(descriptor: int) -> int:
    """The size of the disk in an open file, in bytes. Raises `BadImageError` or `OSError`."""
    length = os.fstat(descriptor).st_size
    start = os.pread(descriptor, FOOTER.size, 0)
    end = os.pread(descriptor, FOOTER.size, max(0, length - FOOTER.size))
    if not start.startswith(COOKIE):
        footer = _footer(end)
        if footer.kind != FIXED_DISK:
            raise BadImageError("its first sector is no copy of its footer")
        if footer.virtual_size > length - FOOTER.size:
            raise BadImageError("it is shorter than the disk that it claims to hold")
        return footer.virtual_size
    footer = _footer(start)
    if footer.kind != DYNAMIC_DISK or (end.startswith(COOKIE) and _footer(end).kind != DYNAMIC_DISK):
        raise BadImageError("its first sector and its footer do not agree")
    _check_table(descriptor, footer, length)
    return footer.virtual_size


def _footer(data: bytes) -> Footer:
    if len(data) < FOOTER.size or not data.startswith(COOKIE):
        raise BadImageError("it is no VHD image")
    (_, _, version, data_offset, _, creator, _, _, _, size, cylinders, heads, sectors, kind, checksum, _, _) = (
        FOOTER.unpack(data)
    )
    if version != VERSION or checksum != _checksum(data, 64):
        raise BadImageError("its footer is damaged")
    if kind == DIFFERENCING_DISK:
        raise BadImageError("it has a parent: merge it with that before (vhd-util coalesce, Merge-VHD)")
    if kind not in (FIXED_DISK, DYNAMIC_DISK):
        raise BadImageError(f"VHD type {kind} is unknown")
    geometry = cylinders * heads * sectors
    if creator not in EXACT and geometry != LARGEST_GEOMETRY:
        size = geometry * 512
    if not 0 < size <= VHD.largest or size % 512:
        raise BadImageError(f"no VHD can have {size} bytes")
    return Footer(data_offset, size, kind)


def _check_table(descriptor: int, footer: Footer, length: int) -> None:
    data = os.pread(descriptor, DYNAMIC.size, footer.data_offset) if footer.data_offset < length else b""
    if len(data) < DYNAMIC.size or not data.startswith(DYNAMIC_COOKIE):
        raise BadImageError("it has no dynamic disk header")
    _, _, table_offset, version, entries, block_size, checksum, parent, _, _, _, _ = DYNAMIC.unpack(data)
    if version != VERSION or checksum != _checksum(data, 36):
        raise BadImageError("its dynamic disk header is damaged")
    if any(parent):
        raise BadImageError("it names a parent")
    if block_size not in BLOCK_LIMITS or block_size & (block_size - 1):
        raise BadImageError(f"blocks of {block_size} bytes are not possible")
    if entries > TABLE_LIMIT or table_offset + entries * 4 > length:
        raise BadImageError("its table does not fit into the file")
    if entries * block_size < footer.virtual_size:
        raise BadImageError("its table is too short for its disk")


def _checksum(data: bytes, offset: int) -> int:
    """The ones' complement of the sum of all bytes but the checksum's own four."""
    return ~(sum(data) - sum(data[offset : offset + 4])) & 0xFFFFFFFF
