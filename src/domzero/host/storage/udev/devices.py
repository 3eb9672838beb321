"""The host's CD drives and removable disks, as the kernel shows them in sysfs. Blocking; opens only CD drives.

See the kernel's Documentation/ABI/stable/sysfs-block.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from domzero.host.storage import numbers
from domzero.host.storage.iscsi.scsi import plain, printable
from domzero.host.storage.numbers import from_os

SECTOR = 512
"""What sysfs counts in, whatever the device does."""
TEXT_LIMIT = 256
DEVICES_LIMIT = 256
CD_NAME = re.compile(r"sr\d{1,4}", re.ASCII)
DISK_NAME = re.compile(r"(?:sd|vd|hd|xvd)[a-z]{1,3}|mmcblk\d{1,3}|nvme\d{1,3}n\d{1,3}", re.ASCII)
CDROM_DRIVE_STATUS = 0x5326
NO_DISC, TRAY_OPEN, NOT_READY = 1, 2, 3
"""From the kernel's uapi/linux/cdrom.h."""
_VOLATILE = re.compile(r"block|host\d+|target[\d:]+|(?:\d+:){3}\d+|nvme\d+|mmc\d+", re.ASCII)


class Kind(Enum):
    """What an operator keeps apart."""

    CD = "cd"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Host:
    """Where this host shows its devices; a test has a host of its own making."""

    sysfs: Path = Path("/sys")
    devices: Path = Path("/dev")
    process: Path = Path("/proc")


@dataclass(frozen=True, slots=True)
class Device:
    """One drive or disk. `size` is bytes, 0 for an empty drive. `identity` stays when it is plugged in elsewhere, where
    the device tells what it is, else as long as it is plugged in at the same place."""

    path: Path
    kind: Kind
    identity: str
    place: str
    name: str
    size: int
    read_only: bool


def find_devices(host: Host, kind: Kind) -> list[Device]:
    """All that can be given to virtual machines: no disk that the host itself uses, and no empty card reader.

    Raises `StorageError` 47 where there is no sysfs.
    """
    try:
        names = sorted(os.listdir(host.sysfs / "block"))
    except OSError as error:
        raise from_os(error, numbers.REPOSITORY_UNAVAILABLE) from error
    pattern = CD_NAME if kind is Kind.CD else DISK_NAME
    found: list[Device] = []
    used = _used(host)
    for name in names:
        if pattern.fullmatch(name) and len(found) < DEVICES_LIMIT:
            device = _look(host, name, kind, used)
            if device is not None:
                found.append(device)
    return _told_apart(found)


def is_in_use(path: Path) -> bool:
    """Whether the host's kernel has the device for itself, by a file system or otherwise."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _look(host: Host, name: str, kind: Kind, used: set[str]) -> Device | None:
    """One device, None for one that is not offered or has just gone."""
    entry = host.sysfs / "block" / name
    real = entry.resolve()
    if kind is Kind.DISK and (not _is_removable(entry, real) or _is_used(entry, used)):
        return None
    path = host.devices / name
    size = _number(entry / "size") * SECTOR
    if kind is Kind.CD and not _has_disc(path):
        size = 0
    if not path.exists() or (kind is Kind.DISK and not size):
        return None
    place = _place(host, real)
    vendor, model = _text(entry / "device/vendor"), _text(entry / "device/model") or _text(entry / "device/name")
    title = f"{vendor} {model}".strip() or name
    serial = _serial(entry, real)
    identity = plain(f"{title}_{serial}") if serial else place
    return Device(path, kind, identity, place, title, size, kind is Kind.CD or _number(entry / "ro") == 1)


def _is_removable(entry: Path, real: Path) -> bool:
    return _number(entry / "removable") == 1 or any(re.fullmatch(r"usb\d+", part) for part in real.parts)


def _is_used(entry: Path, used: set[str]) -> bool:
    """Whether the host mounts it, swaps to it, or has built something on it or on a part of it."""
    parts = [entry, *(child for child in _children(entry) if (child / "partition").is_file())]
    return any(_children(part / "holders") or _text(part / "dev") in used or part.name in used for part in parts)


def _used(host: Host) -> set[str]:
    """Numbers (8:1) and names (sda1) of what is mounted or swapped to."""
    used = set()
    for line in _lines(host.process / "self/mountinfo"):
        place, _, what = line.partition(" - ")
        fields = place.split(" ")
        if len(fields) > 2:
            used.add(fields[2])
        source = what.split(" ")[1:2]
        used.update(Path(each).name for each in source if each.startswith("/dev/"))
    used.update(Path(line.split()[0]).name for line in _lines(host.process / "swaps")[1:] if line.split())
    return used


def _has_disc(path: Path) -> bool:
    """What the drive says. One that cannot say counts as filled; so does one that somebody has for himself."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.EBUSY
    try:
        return fcntl.ioctl(descriptor, CDROM_DRIVE_STATUS) not in (NO_DISC, TRAY_OPEN, NOT_READY)
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _serial(entry: Path, real: Path) -> str:
    """The device's own number, or that of the USB device that it is in; empty where nobody says."""
    page = _content(entry / "device/vpd_pg80")
    if len(page) > 4 and page[1] == 0x80 and (text := printable(page[4:])):
        return text
    for directory in (entry / "device", *(parent for parent in real.parents if (parent / "idVendor").is_file())):
        if text := _text(directory / "serial"):
            unit = re.fullmatch(r"(?:\d+:){3}(\d+)", (real / "device").resolve().name, re.ASCII)
            return f"{text}-{unit[1]}" if unit and unit[1] != "0" else text
    return ""


def _place(host: Host, real: Path) -> str:
    """Where it is plugged in, without the numbers that the kernel gives out anew each time."""
    root = host.sysfs.resolve()
    parts = real.relative_to(root).parts if real.is_relative_to(root) else real.parts
    unit = next((part.rpartition(":")[2] for part in parts if re.fullmatch(r"(?:\d+:){3}\d+", part)), "0")
    steady = [part for part in parts[:-1] if not _VOLATILE.fullmatch(part) and part != "devices"]
    return plain("-".join([*(steady or [real.name]), *([f"unit{unit}"] if unit != "0" else [])]))


def _told_apart(devices: Iterable[Device]) -> list[Device]:
    """Makers give many devices the same serial number; such are told apart by where they are."""
    devices = list(devices)
    claimed = Counter(device.identity for device in devices)
    return [
        device if claimed[device.identity] == 1 else replace(device, identity=f"{device.identity}-{device.place}")
        for device in devices
    ]


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _content(path: Path) -> bytes:
    """What is there to read; a device that goes at this moment has nothing."""
    try:
        with path.open("rb") as file:
            return file.read(TEXT_LIMIT)
    except OSError:
        return b""


def _text(path: Path) -> str:
    return printable(_content(path))


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
