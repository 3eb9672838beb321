"""Where a layer's bytes are: files and devices of this host, which are handed to QEMU opened, and remote images.

A descriptor's label (QEMU calls it opaque and shows it again on demand) says which disk slot it serves and which file
it is, so that a layer is found by identity: its file may have got another name since.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import names, remote
from domzero.host.hypervisor.spec import DiskSource, Extent, RemoteImage

SECTOR = 512
CD_MAJOR = 11
"""The device number of /dev/sr* (Linux, admin-guide/devices.txt)."""

Identity = tuple[int, int]
"""Device and inode number: which file it is, whatever its name."""

LABEL = re.compile(r"(\d{1,4}) (ro|rw) ([0-9a-f]{1,16}):([0-9a-f]{1,16})")


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of a descriptor in one of QEMU's sets."""

    slot: int
    writable: bool
    identity: Identity

    def __str__(self) -> str:
        device, inode = self.identity
        return f"{self.slot} {'rw' if self.writable else 'ro'} {device:x}:{inode:x}"

    @classmethod
    def parse(cls, text: object) -> Label | None:
        """The label, None where a descriptor has none of ours."""
        found = LABEL.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            return None
        return cls(int(found[1]), found[2] == "rw", (int(found[3], 16), int(found[4], 16)))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An opened file on its way into one of QEMU's descriptor sets."""

    fd: int
    set: int
    label: Label


@dataclass(frozen=True, slots=True)
class Secret:
    """A password on its way to QEMU as the object `id`."""

    id: str
    fd: int
    """A pipe from which it can be read once, in base64."""


def identity_of(path: Path) -> Identity:
    """Which file a path leads to now. Raises `HypervisorError`."""
    try:
        found = path.stat()
    except OSError as error:
        raise HypervisorError(f"{path}: {error.strerror}") from error
    return found.st_dev, found.st_ino


def open_file(path: Path, slot: int, number: int, *, writable: bool) -> Descriptor:
    """Open a layer's file for the set of its number; the caller closes it. Raises `HypervisorError`."""
    mode = os.O_RDWR if writable else os.O_RDONLY
    try:
        fd = os.open(path, mode | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise HypervisorError(f"{path}: {error.strerror}") from error
    found = os.fstat(fd)
    return Descriptor(fd, number, Label(slot, writable, (found.st_dev, found.st_ino)))


def file_driver(mode: int, device: int) -> str | None:
    """QEMU's driver for a file with these `st_mode` and `st_rdev`, None for what cannot hold a disk."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISBLK(mode):
        return "host_cdrom" if os.major(device) == CD_MAJOR else "host_device"
    return None


def storage_node(source: DiskSource, slot: int, number: int, opened: Descriptor | None) -> dict[str, object]:
    """The node (options of `blockdev-add`) of what a layer is in, without what its parent passes on (`read-only`).

    QEMU stays on one descriptor (no `auto-read-only`): its locks are the open file's, and those of one that QEMU has
    left would stay with the descriptor set. `opened` is a descriptor of a local file. Raises `HypervisorError` for what
    is neither a file nor a block device.
    """
    place = source.place
    if isinstance(place, RemoteImage):
        secret = names.secret(slot, number) if place.secret else None
        return {"node-name": names.file(slot, number), **remote.options(place, secret)}
    assert opened is not None
    found = os.fstat(opened.fd)
    driver = file_driver(found.st_mode, found.st_rdev)
    if driver is None:
        raise HypervisorError(f"{source.path} is neither a file nor a block device")
    node: dict[str, object] = {
        "driver": driver,
        "node-name": names.file(slot, number),
        "filename": f"/dev/fdset/{number}",
        "auto-read-only": False,
    }
    if isinstance(place, Extent):
        node["locking"] = "off"  # one lock would cover the extents of every other disk, too
    return node


def cut(extent: Extent) -> dict[str, object]:
    """The raw driver's options for a part of a file. Raises `HypervisorError` for a part that cannot be."""
    if extent.offset < 0 or extent.length <= 0 or (extent.offset | extent.length) % SECTOR:
        raise HypervisorError(f"{extent.path}: {extent.length} bytes at {extent.offset} are no whole sectors")
    return {"offset": extent.offset, "size": extent.length}
