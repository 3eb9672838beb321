"""Archives for the kernel's initramfs loader: cpio in the “new ASCII” layout.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. The archive is a function of its entries
alone (no clock, no owner, no order of a directory listing), so equal entries give equal bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
ALIGNMENT = 4
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One file system object, owned by root. `mode` holds type and permissions as `st_mode` does."""

    path: str
    """Relative to the root, without a leading slash."""
    mode: int
    content: bytes = b""
    """A file's bytes, or a symbolic link's target."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device node."""


def directory(path: str, permissions: int = 0o755) -> Entry:
    """A directory; parents are entries of their own and come first."""
    return Entry(path, stat.S_IFDIR | permissions)


def file(path: str, content: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | permissions, content)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """A character device node."""
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """All entries in the order given, then the trailer, padded to whole blocks."""
    parts = [_encode(number, entry) for number, entry in enumerate(entries, start=1)]
    parts.append(_encode(0, Entry(TRAILER, 0)))
    joined = b"".join(parts)
    return joined + bytes(-len(joined) % BLOCK)


def _encode(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    numbers = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
    header = MAGIC + b"".join(b"%08X" % value for value in numbers)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
