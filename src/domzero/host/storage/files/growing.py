"""Making disks larger, and disks that share nothing with others copied in full."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from domzero.finish import finish
from domzero.host.hypervisor.spec import DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.files import place as places
from domzero.host.storage.files.formats import QCOW2, RAW, VHD
from domzero.host.storage.files.layers import new_name
from domzero.host.storage.files.making import file_name, make_image, making_disk, publish
from domzero.host.storage.files.place import Place
from domzero.host.storage.files.plain import PlainDisk
from domzero.host.storage.images import convert_image, resize_image
from domzero.host.storage.protocol import DiskInfo, StorageError

Live = Callable[[int], Awaitable[None]]


async def duplicate(place: Place, disk: PlainDisk, uuid: str) -> DiskInfo:
    """A full copy in the same format."""
    async with making_disk(place, uuid, disk.format) as path:
        await _fill(place, disk, path, disk.virtual_size)
        return await publish(place, uuid, disk.format)


async def grow(place: Place, location: str, plain: PlainDisk | None, size: int, live: Live | None) -> None:
    """Make a disk larger; `size` is one that its format can have, and `plain` is None for qcow2.

    When `live` fails, a raw file stays as long as it has become: what was added holds nothing.
    """
    format = plain.format if plain else QCOW2
    path = place.directory / file_name(location, format)
    if plain is not None and format is VHD:
        if live is not None:
            text = f"disk {location} is a VHD file, which cannot grow while it is in use"
            raise StorageError(numbers.DISK_RESIZE, text)
        await _replace_by_larger(place, plain, size)
    elif live is None:
        await finish(place.workers.attend(lambda: resize_image(path, size, format)))
        await place.seal(path)
    else:
        if format is RAW:
            await place.run(_lengthen, path, size)
        await live(size)
    place.step("disk resized")


async def _replace_by_larger(place: Place, disk: PlainDisk, size: int) -> None:
    """No tool of QEMU's lengthens a VHD file: fill a larger one, which then takes the name in one step."""
    name = new_name(disk.uuid, disk.format)
    async with place.making([name]):
        try:
            await _fill(place, disk, place.directory / name, size)
        except BaseException:
            await place.run(places.remove, place.directory, name)
            raise
        await place.run(places.rename, place.directory, name, disk.name)


async def _fill(place: Place, disk: PlainDisk, path: Path, size: int) -> None:
    await make_image(place, path, size, disk.format)
    source = DiskSource(place.directory / disk.name, disk.format.driver)
    await convert_image(source, path, disk.format, lambda _: None)
    await place.seal(path, full=True)
    place.step("disk copied")


def _lengthen(path: Path, size: int) -> None:
    try:
        os.truncate(path, size)
    except OSError as error:
        raise numbers.from_os(error, numbers.DISK_MISSING) from error
