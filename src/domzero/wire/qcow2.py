"""qcow2 files as streams, without I/O: written from front to back, all tables first, since it is known what will come.

Source: QEMU's docs/interop/qcow2.txt. They cannot be read as streams: what writes them puts tables between and behind
the data that they are about.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from domzero.wire.disk_parts import DiskSizeError, Piece, Runs, Span

HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
MAGIC = b"QFI\xfb"
VERSION = 3
CLUSTER_BITS = 16
LARGEST_BITS = 21
CLUSTERS = 1 << 25
"""Clusters of a disk up to which they stay small."""
LARGEST = 64 << 40
COPIED = 1 << 63
"""In an entry: the cluster has exactly one user."""
REFERENCE_ORDER = 4
"""A reference count has 2 to the power of that many bits: 16."""


def cluster_size(size: int) -> int:
    """Bytes of a cluster: 64 KiB, more for disks that would have too many."""
    return 1 << next((bits for bits in range(CLUSTER_BITS, LARGEST_BITS) if size >> bits <= CLUSTERS), LARGEST_BITS)


@dataclass(frozen=True, slots=True)
class Qcow2:
    """A file that is to be written. `clusters` says which clusters (units of `cluster_size(size)`) it has.

    `size` is a multiple of 512. Raises `DiskSizeError` for one that is too large.
    """

    size: int
    clusters: Runs
    _l2: array[int] = field(init=False, repr=False)
    """Of each level-1 entry: how many of its clusters there are."""
    _tables: tuple[int, int, int] = field(init=False, repr=False)
    """Clusters of the table of reference blocks, of the blocks themselves, and of the level-1 table."""

    def __post_init__(self) -> None:
        if self.size > LARGEST:
            raise DiskSizeError(self.size, LARGEST)
        per_table = self._unit // 8
        used = array("I", bytes(4 * -(-self.size // (self._unit * per_table))))
        for first, count in self.clusters:
            while count:
                table, inside = divmod(first, per_table)
                part = min(count, per_table - inside)
                used[table] += part
                first, count = first + part, count - part
        object.__setattr__(self, "_l2", used)
        l1 = -(-len(used) * 8 // self._unit)
        fixed = 1 + l1 + sum(1 for each in used if each) + self.clusters.units
        blocks, table = 0, 0
        while (wanted := self._references(fixed + blocks + table)) != (blocks, table):
            blocks, table = wanted
        object.__setattr__(self, "_tables", (table, blocks, l1))

    @property
    def length(self) -> int:
        """Bytes of the whole file."""
        return self._total * self._unit

    @property
    def _unit(self) -> int:
        return self.clusters.unit

    @property
    def _total(self) -> int:
        """Clusters of the whole file."""
        return 1 + sum(self._tables) + sum(1 for each in self._l2 if each) + self.clusters.units

    def _references(self, clusters: int) -> tuple[int, int]:
        """How many reference blocks so many clusters take, and how many clusters the table of them."""
        blocks = -(-clusters * 2 // self._unit)
        return blocks, -(-blocks * 8 // self._unit)

    def pieces(self) -> Iterator[Piece]:
        """The file from front to back."""
        unit = self._unit
        table, blocks, l1 = self._tables
        l1_offset = (1 + table + blocks) * unit
        yield self._header(l1_offset)
        yield _packed(range((1 + table) * unit, l1_offset, unit), table * unit)
        yield from self._counts(blocks)
        l2_offset = l1_offset + l1 * unit
        yield self._level_1(l2_offset)
        data = l2_offset + sum(1 for each in self._l2 if each) * unit
        yield from self._level_2(data)
        for first, count in self.clusters:
            yield Span(first * unit, count * unit)

    def _header(self, l1_offset: int) -> bytes:
        unit, (table, _, _) = self._unit, self._tables
        bits = unit.bit_length() - 1
        packed = HEADER.pack(
            MAGIC, VERSION, 0, 0, bits, self.size, 0, len(self._l2), l1_offset, unit, table, 0, 0,
            0, 0, 0, REFERENCE_ORDER, HEADER.size,
        )  # fmt: skip
        return packed.ljust(unit, b"\0")

    def _counts(self, blocks: int) -> Iterator[bytes]:
        """The reference blocks: every cluster of the file has one user."""
        left, per_block = self._total, self._unit // 2
        for _ in range(blocks):
            here = min(left, per_block)
            yield (b"\0\x01" * here).ljust(self._unit, b"\0")
            left -= here

    def _level_1(self, l2_offset: int) -> bytes:
        entries = array("Q", bytes(8 * len(self._l2)))
        for number, used in enumerate(self._l2):
            if used:
                entries[number] = l2_offset | COPIED
                l2_offset += self._unit
        return _packed(entries, self._tables[2] * self._unit)

    def _level_2(self, data: int) -> Iterator[bytes]:
        """The tables that have any entry, one cluster each."""
        unit = self._unit
        per_table = unit // 8
        current, entries = -1, array("Q")
        for first, count in self.clusters:
            while count:
                table, inside = divmod(first, per_table)
                if table != current:
                    if current >= 0:
                        yield _packed(entries, unit)
                    current, entries = table, array("Q", bytes(unit))
                part = min(count, per_table - inside)
                entries[inside : inside + part] = array("Q", range(data | COPIED, (data | COPIED) + part * unit, unit))
                data += part * unit
                first, count = first + part, count - part
        if current >= 0:
            yield _packed(entries, unit)


def _packed(entries: array[int] | range, length: int) -> bytes:
    """Big-endian numbers of 64 bits, and zeros up to the length."""
    numbers = array("Q", entries)
    numbers.byteswap()
    return numbers.tobytes().ljust(length, b"\0")
