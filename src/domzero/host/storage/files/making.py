"""Disks in the making: each step can be the last, and until a disk is published nobody has been told of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from domzero.finish import finish
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.files import layers
from domzero.host.storage.files import place as places
from domzero.host.storage.files.formats import FORMATS, KEY, QCOW2, ImageFormat
from domzero.host.storage.files.layers import Layer, disk_name, new_name, next_name
from domzero.host.storage.files.memory import find_image, image_name
from domzero.host.storage.files.place import Place
from domzero.host.storage.files.plain import PlainDisk, find_plain, plain_name
from domzero.host.storage.files.qcow2 import BadImageError
from domzero.host.storage.images import create_image
from domzero.host.storage.protocol import DiskInfo, StorageError
from domzero.host.storage.uuids import UUID_PATTERN

Switch = Callable[[DiskSource], Awaitable[None]]


def file_name(uuid: str, format: ImageFormat) -> str:
    """The file of a disk."""
    return disk_name(uuid) if format is QCOW2 else plain_name(uuid, format)


def names_of(uuid: str) -> list[str]:
    """Every file that could be the disk or memory image `uuid`."""
    return [*(file_name(uuid, format) for format in FORMATS.values()), image_name(uuid)]


def layer_info(uuid: str, layer: Layer) -> DiskInfo:
    """A disk whose file is that layer."""
    return DiskInfo(uuid, uuid, layer.header.virtual_size, layer.used, sm_config={KEY: QCOW2.name})


def plain_info(disk: PlainDisk) -> DiskInfo:
    """A disk of a plain format."""
    return DiskInfo(disk.uuid, disk.uuid, disk.virtual_size, disk.used, sm_config={KEY: disk.format.name})


async def refuse_taken(place: Place, uuid: str) -> None:
    """Raises `StorageError` 43 when there is a disk or memory image of that uuid, and 1 when it is no uuid."""
    if not UUID_PATTERN.fullmatch(uuid):
        raise StorageError(numbers.INVALID_ARGUMENT, f"{uuid!r} is no uuid")
    if await place.run(_any_there, place.directory, names_of(uuid)):
        raise StorageError(numbers.DISK_EXISTS, f"there is a disk {uuid} already")


@asynccontextmanager
async def making_disk(place: Place, uuid: str, format: ImageFormat = QCOW2) -> AsyncIterator[Path]:
    """Make a disk in the file given, which is not there afterwards if anything goes wrong. Refuses a taken uuid."""
    await place.claim()
    await refuse_taken(place, uuid)
    name = new_name(uuid, format)
    async with place.making([name]):
        try:
            yield place.directory / name
        except BaseException:
            await place.run(places.remove, place.directory, name, file_name(uuid, format))
            place.note_size(uuid, 0)
            raise


async def make_image(
    place: Place, path: Path, virtual_size: int, format: ImageFormat = QCOW2, backing: str | None = None
) -> None:
    """A blank file for a disk or layer, its machine's own."""
    await place.workers.attend(lambda: create_image(path, virtual_size, format, backing))
    await place.seal(path)
    place.step("layer made")


async def publish(place: Place, uuid: str, format: ImageFormat = QCOW2) -> DiskInfo:
    """Give a disk in the making its name, and say what it is."""
    await place.run(places.rename, place.directory, new_name(uuid, format), file_name(uuid, format))
    place.step("disk published")
    info = await describe(place, uuid)
    place.note_size(uuid, info.virtual_size)
    return info


async def describe(place: Place, uuid: str) -> DiskInfo:
    """A disk as it is now. Raises `StorageError` 144 or 65."""
    plain = await plain_disk(place, uuid)
    return plain_info(plain) if plain else layer_info(uuid, (await chain_of(place, uuid))[0])


async def plain_disk(place: Place, uuid: str) -> PlainDisk | None:
    """The disk of that uuid if it is in a plain format. Raises `StorageError` 65 for one that cannot be used."""
    if not UUID_PATTERN.fullmatch(uuid):
        return None
    return await place.run(_plain, place.directory, uuid)


async def chain_of(place: Place, uuid: str) -> list[Layer]:
    """The layers of a disk, each checked. Raises `StorageError` 144 or 65."""
    if not UUID_PATTERN.fullmatch(uuid):
        raise StorageError(numbers.DISK_MISSING, f"there is no disk {uuid!r}")
    return await place.run(read_chain, place.directory, disk_name(uuid))


async def source_of(place: Place, uuid: str) -> DiskSource:
    """What the hypervisor opens for a disk or memory image. Raises `StorageError` 144 or 65."""
    if not UUID_PATTERN.fullmatch(uuid):
        raise StorageError(numbers.DISK_MISSING, f"there is no disk {uuid!r}")
    return await place.run(_source, place.directory, uuid)


def _source(directory: Path, uuid: str) -> DiskSource:
    if find_image(directory, uuid) is not None:
        return DiskSource(directory / image_name(uuid), DiskFormat.RAW)
    if (plain := _plain(directory, uuid)) is not None:
        return DiskSource(directory / plain.name, plain.format.driver, ())
    top, *below = read_chain(directory, disk_name(uuid))
    backing = tuple(DiskSource(directory / layer.name, DiskFormat.QCOW2) for layer in below)
    return DiskSource(directory / top.name, DiskFormat.QCOW2, backing)


async def branch(place: Place, location: str, uuid: str, virtual_size: int, base: str, switch: Switch | None) -> None:
    """Steps 1 to 4 of what `directory` tells of copies that share layers; `base` is the new base's name."""
    following = next_name(location)
    async with place.making([base, following]):
        try:
            await make_image(place, place.directory / following, virtual_size, backing=base)
            await make_image(place, place.directory / new_name(uuid), virtual_size, backing=base)
        except BaseException:
            await place.run(places.remove, place.directory, following)
            raise
        await finish(_move_on(place, location, base, switch))


async def _move_on(place: Place, location: str, base: str, switch: Switch | None) -> None:
    following = next_name(location)
    try:
        await place.run(places.link, place.directory, disk_name(location), base)
        place.step("base linked")
        if switch is not None:
            await switch(DiskSource(place.directory / following, DiskFormat.QCOW2))
    except BaseException:
        await place.run(places.remove, place.directory, following, base)
        raise
    place.step("machine switched")
    await place.run(places.rename, place.directory, following, disk_name(location))
    place.step("layer in place")


def read_chain(directory: Path, name: str) -> list[Layer]:
    """`layers.read_chain` with `StorageError`. Blocking."""
    try:
        return layers.read_chain(directory, name)
    except OSError as error:
        raise numbers.from_os(error, numbers.DISK_MISSING) from error
    except BadImageError as error:
        raise StorageError(numbers.DISK_UNREADABLE, f"{name} is not used: {error}") from error


def may_share(directory: Path, location: str) -> bool:
    """Whether removing a disk may leave a base that nobody needs; an unreadable disk may. Blocking."""
    try:
        return layers.read_layer(directory, disk_name(location)).header.backing is not None
    except FileNotFoundError:
        return False
    except (OSError, BadImageError):
        return True


def _plain(directory: Path, uuid: str) -> PlainDisk | None:
    try:
        if os.path.lexists(directory / disk_name(uuid)):
            return None
        return find_plain(directory, uuid)
    except OSError as error:
        raise numbers.from_os(error, numbers.DISK_MISSING) from error
    except BadImageError as error:
        raise StorageError(numbers.DISK_UNREADABLE, f"disk {uuid} is not used: {error}") from error


def present_names(directory: Path, uuid: str) -> list[str]:
    """The files that are the disk or memory image `uuid`; not those of other disks of its name. Blocking."""
    disks = [file_name(uuid, format) for format in FORMATS.values()]
    present = next((name for name in disks if os.path.lexists(directory / name)), None)
    return [image_name(uuid)] if present is None else [present, image_name(uuid)]


def _any_there(directory: Path, names: list[str]) -> bool:
    return any(os.path.lexists(directory / name) for name in names)
