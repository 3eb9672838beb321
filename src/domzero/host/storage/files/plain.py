"""Disks whose file stands alone: `<uuid>.vhd` and `<uuid>.raw`, made by us or put there by an operator. Blocking."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from domzero.host.storage.files import vhd
from domzero.host.storage.files.formats import PLAIN, RAW, VHD, ImageFormat
from domzero.host.storage.files.qcow2 import BadImageError
from domzero.host.storage.uuids import UUID

PLAIN_NAME = re.compile(rf"({UUID})\.({'|'.join(PLAIN)})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PlainDisk:
    """One disk. `used` is what its file takes on the medium, in bytes."""

    uuid: str
    format: ImageFormat
    virtual_size: int
    used: int

    @property
    def name(self) -> str:
        """Its file's."""
        return plain_name(self.uuid, self.format)


def plain_name(uuid: str, format: ImageFormat) -> str:
    """The file of a disk in that format."""
    return f"{uuid}.{format.name}"


@contextmanager
def opened(directory: Path, name: str) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor to read one file of the directory, never through a link, and what the file is.

    Raises `BadImageError` for what is no regular file, or `OSError`.
    """
    descriptor = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError("it is no regular file")
        yield descriptor, status
    finally:
        os.close(descriptor)


def read_plain(directory: Path, uuid: str, format: ImageFormat) -> PlainDisk:
    """Raises `BadImageError` for a file that is not what its name says, or `OSError`."""
    with opened(directory, plain_name(uuid, format)) as (descriptor, status):
        return PlainDisk(uuid, format, virtual_size(descriptor, format), status.st_blocks * 512)


def virtual_size(descriptor: int, format: ImageFormat) -> int:
    """The size of the disk in an open file of a plain format. Raises as `read_plain`."""
    if format is VHD:
        return vhd.read_virtual_size(descriptor)
    length = os.fstat(descriptor).st_size
    if length == 0:
        raise BadImageError("it is empty")
    return -(-length // RAW.step) * RAW.step


def find_plain(directory: Path, uuid: str) -> PlainDisk | None:
    """The disk of that uuid, None when there is none in a plain format. Raises as `read_plain`."""
    for format in PLAIN.values():
        try:
            return read_plain(directory, uuid, format)
        except FileNotFoundError:
            continue
    return None
