"""The operations that change a volume group in several steps, each of which can be the last: see `lvm`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager

from domzero.finish import finish
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.lvm.fill import fill, zero
from domzero.host.storage.lvm.group import AttachedGroup
from domzero.host.storage.lvm.names import (
    NEW,
    Remove,
    Rename,
    Repair,
    disk_name,
    host_tags,
    leftovers,
    moving_name,
    old_name,
    valid_tag,
)
from domzero.host.storage.lvm.report import Volume
from domzero.host.storage.protocol import StorageError

log = logging.getLogger(__name__)

BLANK = ("--activate", "n", "--zero", "n", "--wipesignatures", "n", "--yes")
"""How a volume is made: `lvm_fill` zeroes it, and all of it."""


@asynccontextmanager
async def making(group: AttachedGroup, uuid: str, size: int) -> AsyncIterator[Volume]:
    """A new volume to fill, which then becomes the disk. Whatever goes wrong, it is not there afterwards.

    The disk must be held. Raises `StorageError` 43 for one that is there already, and 44 where no room is left.
    """
    made = False
    tags = (NEW, *host_tags(group.host))
    try:
        yield await _make(group, disk_name(uuid), size, *_each("--addtag", tags))
        made = True
        group.step("volume filled")
        await group.change("disk published", "lvchange", *_each("--deltag", tags), group.path(disk_name(uuid)))
    except BaseException:
        await finish(_unmake(group, uuid, made=made))
        raise


async def grow(group: AttachedGroup, uuid: str, volume: Volume, size: int, *, may_move: bool) -> None:
    """Make a disk's volume larger, by zeros. Without device mapper it may need another place: `may_move`.

    The disk must be held. Raises `StorageError` 44 where no room is left; then all is as it was.
    """
    path = group.path(volume.name)
    tags = (valid_tag(volume.size), *host_tags(group.host))
    try:
        await group.change("growth announced", "lvchange", *_each("--addtag", tags), path)
        try:
            extents = str(group.extents(size))
            await group.change(
                "volume extended", "lvextend", "--yes", "--extents", extents, *group.access.allocation, path
            )
        except StorageError as error:
            if error.number != numbers.NO_SPACE or not may_move or group.tool.mapped:
                raise
            await _move(group, uuid, volume, size)
            return
        larger = await group.tool.volume(group.name, volume.name)
        await zero(await group.access.open(larger), volume.size, larger.size, group.tool.workers)
        group.step("growth zeroed")
        await group.change("growth published", "lvchange", *_each("--deltag", tags), path)
    except BaseException:
        await finish(_undo(group, uuid))
        raise


async def tidy(group: AttachedGroup, *, all_hosts: bool = False) -> list[Volume]:
    """Complete or undo what killed operations left, and return the volumes that are there after that.

    With `all_hosts`, also what other hosts left: they must not use the group any more.
    """
    async with group.order:
        volumes = await group.tool.volumes(group.name)
        repairs = leftovers(volumes, group.busy, "" if all_hosts else group.host)
        if not repairs:
            return volumes
        await _repair(group, repairs)
        return await group.tool.volumes(group.name)


async def _make(group: AttachedGroup, name: str, size: int, *options: str) -> Volume:
    extents = str(group.extents(size))
    arguments = ["--extents", extents, "--name", name, *BLANK, *options, *group.access.allocation, group.name]
    await group.change("volume made", "lvcreate", *arguments)
    return await group.tool.volume(group.name, name)


async def _move(group: AttachedGroup, uuid: str, volume: Volume, size: int) -> None:
    """Give a disk another, larger volume with the same content; the steps are those of `lvm_names.leftovers`."""
    larger = await _make(group, moving_name(uuid), size)
    source = DiskSource(await group.access.open(volume), DiskFormat.RAW)
    place = await group.access.open(larger)
    await fill(place, larger.size, source, lambda _: None, group.tool.workers)
    group.step("volume filled")
    await group.change("old volume renamed", "lvrename", group.name, volume.name, old_name(uuid))
    await group.change("new volume renamed", "lvrename", group.name, larger.name, volume.name)
    await group.change("old volume removed", "lvremove", "--yes", group.path(old_name(uuid)))


async def _unmake(group: AttachedGroup, uuid: str, *, made: bool) -> None:
    """Without `made`, a volume that is not tagged as new is a disk that was there before."""
    if made:
        await _repair(group, [Remove(disk_name(uuid))])
    else:
        await _undo(group, uuid)


async def _undo(group: AttachedGroup, uuid: str) -> None:
    """Do for one disk at once what `tidy` would do."""
    try:
        volumes = await group.tool.volumes(group.name)
    except StorageError as error:
        log.warning("%s is left as it is: %s", group.path(disk_name(uuid)), error)
        return
    names = {disk_name(uuid), moving_name(uuid), old_name(uuid)}
    await _repair(group, leftovers([volume for volume in volumes if volume.name in names], ()))


async def _repair(group: AttachedGroup, repairs: Collection[Repair]) -> None:
    """What fails is left for the next time."""
    for repair in repairs:
        try:
            await _carry_out(group, repair)
        except StorageError as error:
            log.warning("%s is not repaired: %s", group.path(repair.volume), error)


async def _carry_out(group: AttachedGroup, repair: Repair) -> None:
    path = group.path(repair.volume)
    if isinstance(repair, Remove):
        await group.tool.call("lvremove", "--yes", path)
    elif isinstance(repair, Rename):
        await group.tool.call("lvrename", group.name, repair.volume, repair.name)
    else:
        present = await group.tool.volume(group.name, repair.volume)
        if group.extents(repair.size) * group.extent_size < present.size:
            await group.tool.call("lvreduce", "--yes", "--force", "--size", f"{repair.size}b", path)
        await group.tool.call("lvchange", *_each("--deltag", repair.tags), path)
    group.step("repaired")


def _each(option: str, values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield from (option, value)
