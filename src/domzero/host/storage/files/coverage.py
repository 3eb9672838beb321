"""Whether a layer holds, on its medium, whatever the one below it holds. Blocking.

QEMU keeps tables of an image that it has open in memory for a while. What is in the file's tables is in the file: data
is written first (QEMU's docs/qcow2-cache.txt). The layout of the tables is in its docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from domzero.host.storage.files.layers import read_layer
from domzero.host.storage.files.plain import opened
from domzero.host.storage.files.qcow2 import BadImageError, Header

ENTRY = 8
OFFSET_MASK = 0x00FFFFFFFFFFFE00
"""The part of a level-1 entry that says where the level-2 table is."""


def covers(directory: Path, upper: str, lower: str) -> bool:
    """Whether every cluster that `lower` has is in `upper` as well.

    False also where that cannot be told: for clusters of different sizes or in parts. Raises `BadImageError` or
    `OSError` as `read_layer` does.
    """
    above, below = read_layer(directory, upper).header, read_layer(directory, lower).header
    if above.cluster_bits != below.cluster_bits or above.has_subclusters or below.has_subclusters:
        return False
    with opened(directory, upper) as (over, _), opened(directory, lower) as (under, _):
        over_tables, under_tables = _level_1(over, above), _level_1(under, below)
        for index, place in enumerate(under_tables):
            if place and not _holds(under, place, over, over_tables, index, 1 << below.cluster_bits):
                return False
    return True


def _holds(under: int, place: int, over: int, over_tables: array[int], index: int, size: int) -> bool:
    """Whether a level-2 table has an entry wherever the one below it has."""
    wanted = _table(under, place, size)
    above = over_tables[index] if index < len(over_tables) else 0
    if not above:
        return not any(wanted)
    present = _table(over, above, size)
    return 0 not in present or all(has or not needs for has, needs in zip(present, wanted, strict=True))


def _level_1(descriptor: int, header: Header) -> array[int]:
    table = _table(descriptor, header.l1_offset, header.l1_entries * ENTRY)
    table.byteswap()  # numbers are big-endian
    return array("Q", (entry & OFFSET_MASK for entry in table))


def _table(descriptor: int, offset: int, size: int) -> array[int]:
    """Entries as this machine reads them: good for telling which are zero."""
    data = os.pread(descriptor, size, offset)
    if len(data) != size:
        raise BadImageError("one of its tables is not in the file")
    return array("Q", data)
