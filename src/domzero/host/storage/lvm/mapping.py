"""How the content of a logical volume is reached: through the kernel's device mapper, or by its place on the device.

A kernel without device mapper cannot make devices of volumes. QEMU and the tools that fill volumes then use the extents
on the physical volume itself, which is only possible for a volume in one piece: there, all are made so.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from domzero.host.hypervisor.spec import Extent
from domzero.host.process import ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.lvm.report import Volume
from domzero.host.storage.lvm.tool import LvmTool
from domzero.host.storage.numbers import from_os
from domzero.host.storage.protocol import StorageError

SETTLING = 20
"""Seconds."""


class Access(Protocol):
    """One of the two ways to a volume's content. Failures are `StorageError`."""

    allocation: tuple[str, ...]
    """What `lvcreate` and `lvextend` are told of where a volume's extents may be."""

    async def open(self, volume: Volume) -> Path | Extent:
        """Where the content is; it stays there until `close`."""
        ...

    async def close(self) -> None:
        """Nobody uses any volume of the group any more. Raises `StorageError` 24 when somebody does."""
        ...

    async def settle(self) -> None:
        """Wait for those who look at every new device for a moment (udev)."""
        ...


class MappedAccess:
    """Volumes are block devices `/dev/<group>/<volume>` once they are activated."""

    allocation: tuple[str, ...] = ()

    def __init__(self, tool: LvmTool, group: str) -> None:
        self._tool = tool
        self._group = group

    async def open(self, volume: Volume) -> Path:
        if not volume.active:
            await self._tool.call("lvchange", "--activate", "y", f"{self._group}/{volume.name}")
        return Path("/dev", self._group, volume.name)

    async def close(self) -> None:
        await self._tool.call("vgchange", "--activate", "n", self._group)

    async def settle(self) -> None:
        try:
            await run(["udevadm", "settle", f"--timeout={SETTLING}"], check=False)
        except ProcessError as error:
            raise StorageError(numbers.GENERAL, str(error)) from error


class DirectAccess:
    """Volumes are parts of the devices. `starts` says where on each device its first extent begins, in bytes.

    As the kernel does not know that the devices are used, they are held exclusively (open(2), O_EXCL), so that nobody
    mounts, formats or wipes them.
    """

    allocation: tuple[str, ...] = ("--alloc", "contiguous")

    def __init__(self, starts: Mapping[str, int], extent_size: int) -> None:
        self._starts = starts
        self._extent_size = extent_size
        self._held: list[int] = []

    def hold(self) -> None:
        """Take the devices. Blocking. Raises `StorageError` 16 when somebody else has them."""
        for device in self._starts:
            self._held.append(open_exclusively(Path(device), os.O_RDONLY))

    async def open(self, volume: Volume) -> Extent:
        return place_of(volume, self._starts, self._extent_size)

    async def close(self) -> None:
        while self._held:
            os.close(self._held.pop())

    async def settle(self) -> None:
        """There are no devices to look at."""


def place_of(volume: Volume, starts: Mapping[str, int], extent_size: int) -> Extent:
    """Where a volume in one piece is. Raises `StorageError` 46 for one that the kernel would have to put together."""
    if volume.pieces is None or len(volume.pieces) != 1 or volume.pieces[0].device not in starts:
        text = f"{volume.name} is not in one piece, so that it takes a kernel with device mapper to use it"
        raise StorageError(numbers.DISK_UNAVAILABLE, text)
    piece = volume.pieces[0]
    if (piece.last - piece.first + 1) * extent_size != volume.size:
        raise StorageError(numbers.LVM_METADATA, f"the size of {volume.name} does not fit its extents")
    offset = starts[piece.device] + piece.first * extent_size
    return Extent(Path(piece.device), offset, volume.size)


def has_device_mapper(misc: Path = Path("/proc/misc"), control: Path = Path("/dev/mapper/control")) -> bool:
    """Whether the kernel can map volumes; opening the control device loads its module where it is one. Blocking."""
    try:
        if any(line.split()[1:] == ["device-mapper"] for line in misc.read_text().splitlines()):
            return True
        os.close(os.open(control, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def open_exclusively(device: Path, mode: int) -> int:
    """A block device that nobody else has so: what is mounted, mapped or swapped to is somebody's. Blocking.

    Raises `StorageError` 16 when somebody has it, and 91 when it cannot be opened.
    """
    try:
        return os.open(device, mode | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise StorageError(numbers.REPOSITORY_IN_USE, f"{device} is in use") from error
        raise from_os(error, numbers.DEVICE_INVALID) from error
