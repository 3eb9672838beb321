"""What the header of a qcow2 file says, read without opening the image.

QEMU follows the names that a header holds, so a header is looked at before any tool of QEMU's gets the file. The layout
is in QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from domzero.host.storage.files.formats import QCOW2

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
FEATURES = struct.Struct(">QQQII")
EXTENSION = struct.Struct(">II")
DAMAGED = 1 << 1
EXTERNAL_DATA_FILE = 1 << 2
"""The incompatible feature with which the guest's data is in another file."""
SUBCLUSTERS = 1 << 4
KNOWN_FEATURES = (1 << 5) - 1
"""Dirty, damaged, external data file, compression type, extended level-2 entries."""
CLUSTER_BITS = range(9, 22)
BACKING_FORMAT = 0xE2792ACA
NAME_LIMIT = 1023
"""Bytes of a backing file's name, by the format's own rule."""
EXTENSIONS_LIMIT = 64
L1_LIMIT = 32 << 20
"""Bytes of a level-1 table, QEMU's own limit."""
REFERENCES_LIMIT = 8 << 20
"""Bytes of a table of reference counts, QEMU's own limit."""
SNAPSHOTS_LIMIT = 1024
"""Snapshots inside of an image: ours have none, and QEMU reads the list of them into memory."""


class BadImageError(Exception):
    """The file is no qcow2 image, or one of a kind that we never write."""


@dataclass(frozen=True, slots=True)
class Header:
    """What matters of a header. `backing` is the name as written."""

    virtual_size: int
    backing: str | None
    backing_format: str | None
    l1_offset: int
    l1_entries: int
    cluster_bits: int = 16
    """A cluster has 2 to the power of that many bytes."""
    has_subclusters: bool = False


def read_header(descriptor: int) -> Header:
    """Read from an open file. Raises `BadImageError` or `OSError`."""
    start = os.pread(descriptor, 4096, 0)
    if len(start) < HEADER.size + FEATURES.size or not start.startswith(MAGIC):
        raise BadImageError("it is no qcow2 image")
    _, version, name_offset, name_size, bits, size, crypt, l1_entries, *rest = HEADER.unpack_from(start)
    l1_offset, references, reference_clusters, snapshots, _ = rest
    if version not in (2, 3):
        raise BadImageError(f"qcow2 version {version} is unknown")
    if crypt:
        raise BadImageError("it is encrypted")
    if bits not in CLUSTER_BITS or size > QCOW2.largest or snapshots > SNAPSHOTS_LIMIT:
        raise BadImageError("its header makes no sense")
    length = os.fstat(descriptor).st_size
    _check_table("level-1 table", l1_offset, l1_entries * 8, L1_LIMIT, length)
    _check_table("table of reference counts", references, reference_clusters << bits, REFERENCES_LIMIT, length)
    extensions, features = _check_features(start) if version == 3 else (HEADER.size, 0)
    backing = _name(descriptor, name_offset, name_size) if name_offset else None
    parts = bool(features & SUBCLUSTERS)
    return Header(size, backing, _backing_format(start, extensions), l1_offset, l1_entries, bits, parts)


def _check_table(name: str, offset: int, size: int, limit: int, length: int) -> None:
    if size > limit or offset + size > length:
        raise BadImageError(f"its {name} does not fit")


def _check_features(start: bytes) -> tuple[int, int]:
    """Returns where the header's extensions begin, and the incompatible features."""
    incompatible, _, _, _, extensions = FEATURES.unpack_from(start, HEADER.size)
    if incompatible & EXTERNAL_DATA_FILE:
        raise BadImageError("its data is in another file")
    if incompatible & DAMAGED:
        raise BadImageError("it is marked as damaged (qemu-img check)")
    if incompatible & ~KNOWN_FEATURES:
        raise BadImageError("it has features that are unknown")
    if not HEADER.size + FEATURES.size <= extensions <= len(start):
        raise BadImageError("its header makes no sense")
    return extensions, incompatible


def holds_nothing(descriptor: int, header: Header) -> bool:
    """Whether this layer has no cluster of its own: its level-1 table is blank.

    Only true of an image that nobody has open for writing; QEMU writes tables late.
    """
    length = header.l1_entries * 8
    if length > L1_LIMIT:
        raise BadImageError("its level-1 table is too long")
    table = os.pread(descriptor, length, header.l1_offset)
    return len(table) == length and not any(table)


def _name(descriptor: int, offset: int, size: int) -> str:
    if size > NAME_LIMIT:
        raise BadImageError("the name of its backing file is too long")
    name = os.pread(descriptor, size, offset)
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise BadImageError("the name of its backing file is not ASCII") from None


def _backing_format(start: bytes, offset: int) -> str | None:
    for _ in range(EXTENSIONS_LIMIT):
        if offset + EXTENSION.size > len(start):
            break
        kind, length = EXTENSION.unpack_from(start, offset)
        if kind == 0:
            break
        if kind == BACKING_FORMAT:
            return start[offset + 8 : offset + 8 + length].decode("ascii", errors="replace")
        offset += 8 + (length + 7) // 8 * 8
    return None
