"""What a repository's volume group and volumes are called, and what killed operations left behind in it. Pure.

A volume carries tags as long as it is not what its name says: `domzero_new` while a new disk is filled, so that it is
no disk yet, and `domzero_valid_<bytes>` while a disk grows, so that only so many of its bytes are. Each goes with the
one change of LVM's metadata that completes the operation. On a medium that several hosts share, `domzero_on_<host>`
goes along with them and says whose operation it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from domzero.host.storage.lvm.report import Volume
from domzero.host.storage.uuids import UUID

GROUP_PREFIX = "VG_XenStorage-"
GROUP_NAME = re.compile(rf"{GROUP_PREFIX}({UUID})", re.ASCII)
DISK_NAME = re.compile(rf"LV-({UUID})", re.ASCII)
MOVED_NAME = re.compile(rf"(?:OLD|MOVE)-({UUID})", re.ASCII)
NEW = "domzero_new"
HOST_PREFIX = "domzero_on_"
VALID = re.compile(r"domzero_valid_([1-9][0-9]{0,18})", re.ASCII)


def group_name(uuid: str) -> str:
    """The volume group of a repository."""
    return f"{GROUP_PREFIX}{uuid}"


def disk_name(uuid: str) -> str:
    """The volume of a disk."""
    return f"LV-{uuid}"


def moving_name(uuid: str) -> str:
    """The larger volume that is to become a disk's, while it is filled."""
    return f"MOVE-{uuid}"


def old_name(uuid: str) -> str:
    """The volume that a disk had before."""
    return f"OLD-{uuid}"


def valid_tag(size: int) -> str:
    """Says that only the first `size` bytes of a volume are the disk's."""
    return f"domzero_valid_{size}"


def host_tags(host: str) -> tuple[str, ...]:
    """Say whose operation it is; none on a medium that belongs to one host."""
    return (f"{HOST_PREFIX}{host}",) if host else ()


def repository_of(group: str) -> str | None:
    """The uuid of the repository that a volume group is, None for other groups."""
    found = GROUP_NAME.fullmatch(group)
    return found[1] if found else None


def disk_of(volume: Volume) -> str | None:
    """The uuid of the disk that a volume is, None for what is none (yet)."""
    found = DISK_NAME.fullmatch(volume.name)
    return found[1] if found and NEW not in volume.tags else None


def valid_size(volume: Volume) -> int:
    """How many bytes of a disk's volume are the disk's."""
    found = (VALID.fullmatch(tag) for tag in volume.tags)
    return min([int(each[1]) for each in found if each], default=volume.size)


@dataclass(frozen=True, slots=True)
class Remove:
    """A volume that nobody needs."""

    volume: str


@dataclass(frozen=True, slots=True)
class Shrink:
    """A volume that was made larger, by space that was perhaps never zeroed and that nobody has seen."""

    volume: str
    size: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rename:
    """A volume that is complete, but not under its name yet."""

    volume: str
    name: str


Repair = Remove | Shrink | Rename


def leftovers(volumes: Iterable[Volume], busy: Collection[str], host: str = "") -> list[Repair]:
    """What completes or undoes the operations that were killed. `busy` are disks (uuids) whose operations go on.

    With `host`, only what that host has left is looked at, and what no host put its name to.

    A disk moves to a larger volume so: (1) `MOVE-<uuid>` is filled; (2) `LV-<uuid>` becomes `OLD-<uuid>`; (3) `MOVE-`
    becomes `LV-`; (4) `OLD-` goes. So where a disk's name is missing, `MOVE-` is complete.
    """
    present = {volume.name: volume for volume in volumes}
    repairs: list[Repair] = []
    for name, volume in sorted(present.items()):
        disk, moved = DISK_NAME.fullmatch(name), MOVED_NAME.fullmatch(name)
        found = disk or moved
        if found is None or found[1] in busy or _is_elsewhere(volume, host):
            continue
        uuid = found[1]
        if disk and NEW in volume.tags:
            repairs.append(Remove(name))
        elif disk:
            repairs += _shrinking(volume)
        elif name == moving_name(uuid) and disk_name(uuid) not in present and old_name(uuid) in present:
            repairs += [Rename(name, disk_name(uuid)), Remove(old_name(uuid))]
        elif disk_name(uuid) in present:
            repairs.append(Remove(name))
        elif name == old_name(uuid) and moving_name(uuid) not in present:
            repairs.append(Rename(name, disk_name(uuid)))
    return repairs


def _is_elsewhere(volume: Volume, host: str) -> bool:
    owners = {tag.removeprefix(HOST_PREFIX) for tag in volume.tags if tag.startswith(HOST_PREFIX)}
    return bool(host and owners - {host})


def _shrinking(volume: Volume) -> list[Repair]:
    """The tag of a host alone, without a size, says nothing."""
    if not any(VALID.fullmatch(tag) for tag in volume.tags):
        return []
    tags = tuple(sorted(tag for tag in volume.tags if VALID.fullmatch(tag) or tag.startswith(HOST_PREFIX)))
    return [Shrink(volume.name, min(valid_size(volume), volume.size), tags)]
