"""Disks in VHD and raw files, made by us or put into the directory by an operator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource, Extent
from domzero.host.storage.files.formats import FORMATS, PLAIN
from domzero.host.storage.protocol import Repository
from tests.host.storage.disks import MIB, Shelf, holds, raw, refused, tool, uuid, write


def told(path: Path, format: str) -> dict[str, object]:
    info: dict[str, object] = json.loads(tool("qemu-img", "info", "--output=json", "-f", format, path))
    return info


async def made(shelf: Shelf, number: int, format: str, size: int = 4 * MIB) -> DiskSource:
    await shelf.driver.create_disk(shelf.repository, uuid(number), size, {"image-format": format})
    return await shelf.source(number)


@pytest.mark.parametrize("format", sorted(FORMATS))
async def test_each_format_is_made_written_found_and_told(shelf: Shelf, format: str) -> None:
    source = await made(shelf, 1, format)
    assert source == DiskSource(shelf.directory / f"{uuid(1)}.{format}", FORMATS[format].driver, ())
    assert told(source.path, source.format.value)["virtual-size"] == 4 * MIB
    write(source, 1, 3 * MIB)
    assert holds(source, 1, 3 * MIB)
    assert holds(source, 0, 0)
    (found,) = await shelf.driver.scan(shelf.repository)
    assert (found.uuid, found.virtual_size, found.sm_config) == (uuid(1), 4 * MIB, {"image-format": format})
    assert found == await shelf.driver.update_disk(shelf.repository, uuid(1))
    assert found.physical_utilisation < 4 * MIB
    assert (await shelf.driver.size(shelf.repository)).virtual_allocation == 4 * MIB
    await refused(43, shelf.driver.create_disk(shelf.repository, uuid(1), MIB))
    await shelf.driver.destroy_disk(shelf.repository, uuid(1))
    assert shelf.files() == []


async def test_an_unknown_format_is_refused(shelf: Shelf) -> None:
    await refused(66, shelf.driver.create_disk(shelf.repository, uuid(1), MIB, {"image-format": "vmdk"}))
    assert shelf.files() == []


@pytest.mark.parametrize(
    ("asked", "size"),
    [(1, 2 * MIB), (2 * MIB, 2 * MIB), (2 * MIB + 1, 4 * MIB), (127 * MIB, 128 * MIB), (2040 << 30, 2040 << 30)],
)
async def test_vhd_sizes_count_blocks(shelf: Shelf, asked: int, size: int) -> None:
    source = await made(shelf, 1, "vhd", asked)
    assert told(source.path, "vpc")["virtual-size"] == size
    assert (await shelf.driver.update_disk(shelf.repository, uuid(1))).virtual_size == size


async def test_a_vhd_has_a_largest_size(shelf: Shelf) -> None:
    call = shelf.driver.create_disk(shelf.repository, uuid(1), (2040 << 30) + 1, {"image-format": "vhd"})
    await refused(79, call)


async def test_files_put_there_by_hand_are_found(shelf: Shelf, tmp_path: Path) -> None:
    content = raw(tmp_path / "content", 4 * MIB, b"\7" * 65536).path
    for number, (driver, name) in enumerate([("qcow2", "qcow2"), ("vpc", "vhd"), ("raw", "raw")], start=1):
        tool("qemu-img", "convert", "-f", "raw", "-O", driver, content, shelf.directory / f"{uuid(number)}.{name}")
    fixed = ["-o", "subformat=fixed,force_size=on"]
    tool("qemu-img", "convert", "-f", "raw", "-O", "vpc", *fixed, content, shelf.directory / f"{uuid(4)}.vhd")
    found = await shelf.driver.scan(shelf.repository)
    assert {disk.uuid: disk.sm_config["image-format"] for disk in found} == {
        uuid(1): "qcow2",
        uuid(2): "vhd",
        uuid(3): "raw",
        uuid(4): "vhd",
    }
    for disk in found:
        source = await shelf.driver.source(shelf.repository, disk.location)
        assert disk.virtual_size == told(source.path, source.format.value)["virtual-size"]
        assert holds(source, 7)


async def test_two_files_of_one_disk_are_told_apart(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    source = await made(shelf, 1, "qcow2")
    raw(shelf.directory / f"{uuid(1)}.raw", MIB)
    assert [disk.sm_config["image-format"] for disk in await shelf.driver.scan(shelf.repository)] == ["qcow2"]
    assert f"{uuid(1)}.raw is left out" in caplog.text
    assert await shelf.source(1) == source
    await shelf.driver.destroy_disk(shelf.repository, uuid(1))
    assert shelf.files() == [f"{uuid(1)}.raw"]


@pytest.mark.parametrize("format", sorted(PLAIN))
async def test_copies_of_plain_disks_stand_alone(shelf: Shelf, format: str) -> None:
    write(await made(shelf, 1, format), 1)
    await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    info = await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(3), None)
    assert (info.virtual_size, info.sm_config) == (4 * MIB, {"image-format": format})
    write(await shelf.source(2), 2)
    for number, mark in ((1, 1), (2, 2), (3, 1)):
        assert holds(await shelf.source(number), mark)
    assert shelf.files() == sorted(f"{uuid(number)}.{format}" for number in (1, 2, 3))
    await refused(43, shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(3)))


@pytest.mark.parametrize("format", sorted(PLAIN))
async def test_a_plain_disk_in_use_is_not_snapshotted(shelf: Shelf, format: str) -> None:
    await made(shelf, 1, format)
    asked: list[DiskSource] = []

    async def switch(source: DiskSource) -> None:
        asked.append(source)

    said = await refused(82, shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(2), switch))
    assert "while it is in use" in said
    assert asked == []
    assert shelf.files() == [f"{uuid(1)}.{format}"]


@pytest.mark.slow
async def test_copies_convert_between_formats(shelf: Shelf) -> None:
    for number, format in enumerate(FORMATS, start=1):
        write(await made(shelf, number, format), 7)
        for offset, wanted in enumerate(FORMATS, start=1):
            here = Repository(shelf.repository.uuid, shelf.repository.device_config, {"image-format": wanted})
            copy = uuid(16 * number + offset)
            info = await shelf.driver.copy_disk(await shelf.source(number), here, copy, 5 * MIB, lambda _: None)
            assert info.sm_config["image-format"] == wanted
            assert info.virtual_size == (6 if wanted == "vhd" else 5) * MIB
            assert info.physical_utilisation < MIB
            assert holds(await shelf.driver.source(here, copy), 7)


@pytest.mark.parametrize("format", sorted(FORMATS))
async def test_every_format_grows(shelf: Shelf, format: str) -> None:
    write(await made(shelf, 1, format), 1)
    info = await shelf.driver.resize_disk(shelf.repository, uuid(1), 9 * MIB)
    assert info.virtual_size == (10 if format == "vhd" else 9) * MIB
    assert holds(await shelf.source(1), 1)
    assert holds(await shelf.source(1), 0, 8 * MIB)
    await refused(79, shelf.driver.resize_disk(shelf.repository, uuid(1), MIB))
    assert len(shelf.files()) == 1


@pytest.mark.parametrize("format", ["qcow2", "raw"])
async def test_a_machine_is_told_of_the_new_size_once(shelf: Shelf, format: str) -> None:
    source = await made(shelf, 1, format)
    asked: list[int] = []

    async def live(size: int) -> None:
        asked.append(size)
        if format == "raw":
            assert source.path.stat().st_size == size
        else:
            tool("qemu-img", "resize", "-q", "-f", format, source.path, str(size))

    info = await shelf.driver.resize_disk(shelf.repository, uuid(1), 5 * MIB + 1, live)
    assert asked == [5 * MIB + 512]
    assert info.virtual_size == 5 * MIB + 512
    await refused(79, shelf.driver.resize_disk(shelf.repository, uuid(1), 4 * MIB, live))
    await refused(79, shelf.driver.resize_disk(shelf.repository, uuid(1), 9 << 60, live))
    assert len(asked) == 1


async def test_a_vhd_does_not_grow_under_a_machine(shelf: Shelf) -> None:
    await made(shelf, 1, "vhd")

    async def live(size: int) -> None:
        raise AssertionError("the machine was asked")

    await refused(110, shelf.driver.resize_disk(shelf.repository, uuid(1), 8 * MIB, live))


async def test_a_machine_that_refuses_the_size_keeps_its_disk(shelf: Shelf) -> None:
    write(await made(shelf, 1, "qcow2"), 1)

    async def live(size: int) -> None:
        raise RuntimeError("the machine would not")

    with pytest.raises(RuntimeError):
        await shelf.driver.resize_disk(shelf.repository, uuid(1), 8 * MIB, live)
    assert (await shelf.driver.update_disk(shelf.repository, uuid(1))).virtual_size == 4 * MIB
    assert holds(await shelf.source(1), 1)


async def test_a_disk_that_is_part_of_a_file_can_be_copied(shelf: Shelf, tmp_path: Path) -> None:
    volume = raw(tmp_path / "a,b", 8 * MIB, b"\1" * MIB + b"\2" * MIB + b"\3" * MIB)
    extent = DiskSource(Extent(volume.path, MIB, MIB), DiskFormat.RAW)
    await shelf.driver.copy_disk(extent, shelf.repository, uuid(1), 2 * MIB, lambda _: None)
    assert holds(await shelf.source(1), 2)
    assert holds(await shelf.source(1), 0, MIB)
