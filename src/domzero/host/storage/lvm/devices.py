"""Block devices of this host that volume groups are made on: naming them, listing them, and taking unused ones."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from domzero.finish import in_thread
from domzero.host.process import ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.lvm.mapping import open_exclusively
from domzero.host.storage.menus import BlockDevice, device_menu
from domzero.host.storage.protocol import DriverInfo, StorageError

NAME = re.compile(r"/dev(?:/[\w.+:@=-]+)+", re.ASCII)
"""What a device's path may look like: nothing that LVM's options would take for more than one."""
MEMBER = "LVM2_member"
TIMEOUT = 20.0
LSBLK = ("lsblk", "--json", "--bytes", "-o", "PATH,TYPE,SIZE,MOUNTPOINTS,VENDOR,SERIAL,RO")
USABLE = frozenset({"disk", "part", "loop", "mpath", "raid0", "raid1", "raid5", "raid6", "raid10", "crypt"})

INFO = DriverInfo(
    type="lvm",
    name="Local LVM",
    description="Disks are logical volumes on local block devices",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=(
        "SR_PROBE",
        "SR_UPDATE",
        "VDI_ATTACH",
        "VDI_CREATE",
        "VDI_DELETE",
        "VDI_DETACH",
        "VDI_INTRODUCE",
        "VDI_RESIZE",
        "VDI_RESIZE_ONLINE",
        "VDI_UPDATE",
    ),
    configuration={
        "device": "comma-separated paths of the block devices to use, such as /dev/disk/by-id/…",
        "force": "true to use devices although they hold something, which is lost",
    },
    holds_images=False,
)


class LocalDevices:
    """Implements `DeviceMedium`: `device_config` names the devices."""

    def info(self) -> DriverInfo:
        return INFO

    async def connect(self, device_config: Mapping[str, str]) -> tuple[Path, ...]:
        """Raises `StorageError` 90, with a menu, where none is named, and 91 for what is no block device."""
        named = names_in(device_config.get("device", ""))
        if not named:
            menu = device_menu(await unused_devices())
            raise StorageError(numbers.DEVICE_MISSING, "device_config has no device", menu)
        found = [await in_thread(resolve, name) for name in named]
        if len(set(found)) != len(found):
            raise StorageError(numbers.DEVICE_INVALID, "device_config names one device twice")
        return tuple(found)

    async def disconnect(self, device_config: Mapping[str, str]) -> None:
        """The devices are simply there."""


def names_in(text: str) -> list[str]:
    """The paths of a comma list. Raises `StorageError` 91 for one that cannot be a device's."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not NAME.fullmatch(name) or ".." in name.split("/"):
            raise StorageError(numbers.DEVICE_INVALID, f"{name!r} is not the path of a device")
    return names


def resolve(name: str) -> Path:
    """The device that a path leads to. Blocking. Raises `StorageError` 91."""
    try:
        path = Path(name).resolve(strict=True)
        mode = path.stat().st_mode
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its links lead in a circle"
        raise StorageError(numbers.DEVICE_INVALID, f"{name}: {reason}") from error
    if not stat.S_ISBLK(mode) or not NAME.fullmatch(str(path)):
        raise StorageError(numbers.DEVICE_INVALID, f"{name} is no block device")
    return path


async def unused_devices() -> list[BlockDevice]:
    """The disks and partitions that nothing on this host uses."""
    try:
        said = await run(LSBLK, timeout=TIMEOUT)
    except ProcessError as error:
        raise StorageError(numbers.GENERAL, str(error)) from error
    return list(read_list(said.stdout))


def read_list(said: bytes) -> Iterator[BlockDevice]:
    """What `LSBLK` prints, without what is in use. Raises `StorageError` 202 when it is something else."""
    try:
        for row in _leaves(orjson.loads(said)["blockdevices"]):
            mounted = any(row["mountpoints"])
            if row["type"] in USABLE and row["size"] and not row["ro"] and not mounted:
                words = [(row[column] or "").strip() for column in ("vendor", "serial")]
                yield BlockDevice(row["path"], int(row["size"]), *words)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(numbers.GENERAL, f"the list of devices cannot be read: {error}") from error


def _leaves(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        children = row.get("children")
        yield from _leaves(children) if children else [row]


async def take_unused(devices: Sequence[Path], blank: Collection[Path], *, force: bool) -> None:
    """Make sure that the devices may be written over. With `force`, what is on those not in use is wiped.

    `blank` are known to hold nothing, whatever there seems to be: physical volumes of no group.

    Raises `StorageError` 16 for a device in use, 42 for one that holds a repository or other volumes, and 55 for one
    that holds anything else.
    """
    for device in devices:
        os.close(await in_thread(open_exclusively, device, os.O_RDWR))
    held = {device: await signatures(device) for device in devices if device not in blank}
    for device, kinds in held.items():
        if kinds and not force:
            number = numbers.REPOSITORY_EXISTS if MEMBER in kinds else numbers.PARTITION_CREATE
            text = f"{device} holds something ({', '.join(kinds)}); device_config force=true would erase it"
            raise StorageError(number, text)
    for device in (device for device, kinds in held.items() if kinds):
        await _wipefs("--all", device)


async def signatures(device: Path) -> list[str]:
    """What a device holds as far as it can be told: file systems, partition tables, members of volume groups."""
    said = await _wipefs("--no-act", device)
    try:
        return sorted({str(found["type"]) for found in orjson.loads(said or b"{}").get("signatures", [])})
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(numbers.PARTITION_CREATE, f"wipefs is not understood: {error}") from error


async def _wipefs(action: str, device: Path) -> bytes:
    try:
        return (await run(["wipefs", "--json", action, device], timeout=TIMEOUT)).stdout
    except ProcessError as error:
        raise StorageError(numbers.PARTITION_CREATE, str(error)) from error
