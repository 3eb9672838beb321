"""The contract for reading and writing what is on a disk, whatever its format and repository.

For up- and downloads: one reader or writer at a time, mostly from front to back. Everything is bytes; offsets and
lengths need not be aligned. Memory is bounded by the blocks that the caller asks for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from domzero.host.hypervisor.spec import DiskSource


class ContentError(Exception):
    """A disk could not be opened, read or written; the text says why."""


class MediumFullError(ContentError):
    """There is no room left for what was to be written."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a disk: `data` is False where it is known to read as zeros without being read."""

    offset: int
    length: int
    data: bool


class ContentReader(Protocol):
    """An opened disk, which does not change meanwhile. Methods raise `ContentError`."""

    size: int
    """The disk's virtual size."""

    def stretches(self) -> AsyncIterator[Stretch]:
        """The whole disk from front to back, neighbours merged."""
        ...

    async def read(self, offset: int, length: int) -> bytes | bytearray:
        """So many bytes; past the end of the disk raises `ContentError`. Several reads may wait at the same time."""
        ...


class ContentWriter(Protocol):
    """An opened disk whose content is being replaced or made. Methods raise `ContentError` (a full medium, too)."""

    size: int
    """The disk's virtual size."""

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put bytes there; past the end of the disk raises `ContentError`. Several writes may wait at the same time."""
        ...

    async def zero(self, offset: int, length: int) -> None:
        """Make a part read as zeros, without taking room where the format can do that."""
        ...

    async def flush(self) -> None:
        """Return when everything written so far is on the medium."""
        ...


class DiskContents(Protocol):
    """Opens disks of this host."""

    def reading(self, source: DiskSource) -> AbstractAsyncContextManager[ContentReader]:
        """Open a disk that nobody writes. Raises `ContentError`."""
        ...

    def writing(self, source: DiskSource) -> AbstractAsyncContextManager[ContentWriter]:
        """Open a disk that nobody else uses. What was not flushed when the block ends may be lost. Raises
        `ContentError`."""
        ...
