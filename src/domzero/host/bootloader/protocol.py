"""The contract for finding a kernel on a machine's disk, which is written by its guest and not to be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from domzero.host.hypervisor.spec import DiskSource


class LoaderError(Exception):
    """No kernel could be had from the disk; the text says why."""


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """What to choose, empty for what the disk's own menu says."""

    entry: str = ""
    """Number or title in the menu."""
    kernel: str = ""
    """A file in the disk's file system, in place of the menu's."""
    ramdisk: str = ""
    offset: int | None = None
    """Where the file system begins, in bytes; None to look into every partition."""
    arguments: str = ""
    """Put after the menu's kernel arguments."""


@dataclass(frozen=True, slots=True)
class FoundKernel:
    """A kernel and its RAM disk, copied out of the disk."""

    kernel: Path
    ramdisk: Path | None
    arguments: str


class DiskLoader(Protocol):
    """Reads disks on behalf of machines that are about to start."""

    async def find(self, disk: DiskSource, options: LoaderOptions, kernel: Path, ramdisk: Path) -> FoundKernel:
        """Copy the kernel and RAM disk that the disk's boot menu names to these files of a directory that exists.

        Nobody may write the disk meanwhile. The disk is bounded in time, memory and in what it can make us write.
        Raises `LoaderError`; then, and when the call is cancelled, the files are not there.
        """
        ...
