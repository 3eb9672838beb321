"""Directories of CD images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.iso import driver as iso
from domzero.host.storage.iso.driver import IsoStorage
from domzero.host.storage.protocol import Repository, StorageDriver
from tests.host.storage.disks import REPOSITORY, refused, repository, uuid


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    (directory / "tools.iso").write_bytes(b"x" * 10000)
    (directory / "Windows 2003.ISO").write_bytes(b"y" * 2048)
    (directory / "floppy.img").write_bytes(b"z" * 512)
    (directory / ".hidden.iso").touch()
    (directory / "letter.txt").touch()
    (directory / "folder.iso").mkdir()
    (directory / "link.iso").symlink_to("/etc/passwd")
    (directory / "new\nline.iso").touch()
    os.mkfifo(directory / "pipe.iso")
    return directory


async def test_images_are_listed_under_their_names(images: Path) -> None:
    driver: StorageDriver = IsoStorage()
    here = repository(images)
    await driver.create(here, 0)
    await driver.attach(here)
    found = await driver.scan(here)
    assert [disk.location for disk in found] == ["Windows 2003.ISO", "floppy.img", "tools.iso"]
    tools = found[2]
    assert (tools.name, tools.virtual_size, tools.read_only) == ("tools.iso", 10000, True)
    assert await driver.update_disk(here, "tools.iso") == tools
    assert await driver.source(here, "tools.iso") == DiskSource(images / "tools.iso", DiskFormat.RAW)
    size = await driver.size(here)
    assert (size.physical_size, size.virtual_allocation) == (size.physical_utilisation, 12560)
    again = IsoStorage()
    await again.attach(here)
    assert await again.scan(here) == found
    elsewhere = Repository(uuid(9), here.device_config)
    await again.attach(elsewhere)
    assert {disk.uuid for disk in await again.scan(elsewhere)}.isdisjoint(disk.uuid for disk in found)


@pytest.mark.parametrize(
    "name", ["none.iso", "link.iso", "pipe.iso", "folder.iso", "letter.txt", "../images/tools.iso", "", ".hidden.iso"]
)
async def test_nothing_else_is_given_out(images: Path, name: str) -> None:
    driver = IsoStorage()
    here = repository(images)
    await driver.attach(here)
    await refused(144, driver.source(here, name))
    await refused(144, driver.update_disk(here, name))


async def test_nothing_is_written(images: Path) -> None:
    driver = IsoStorage()
    here = repository(images)
    await driver.attach(here)
    before = sorted(os.listdir(images))
    await refused(38, driver.create_disk(here, uuid(1), 512))
    await refused(38, driver.destroy_disk(here, "tools.iso"))
    await refused(38, driver.clone_disk(here, "tools.iso", uuid(1)))
    await refused(38, driver.snapshot_disk(here, "tools.iso", uuid(1), None))
    await refused(38, driver.resize_disk(here, "tools.iso", 1 << 20))
    source = await driver.source(here, "tools.iso")
    await refused(38, driver.copy_disk(source, here, uuid(1), 1 << 20, lambda _: None))
    await driver.destroy(here)
    assert sorted(os.listdir(images)) == before
    await refused(47, driver.scan(here))


async def test_locations(tmp_path: Path) -> None:
    driver = IsoStorage()
    await refused(94, driver.attach(Repository(REPOSITORY, {})))
    await refused(94, driver.attach(Repository(REPOSITORY, {"location": "images"})))
    await refused(94, driver.attach(Repository(REPOSITORY, {"location": f"{tmp_path}/../x"})))
    await refused(47, driver.attach(repository(tmp_path / "none")))
    assert driver.info().content_type == "iso"


async def test_more_images_than_anyone_has_are_not_all_listed(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iso, "IMAGES_LIMIT", 2)
    driver = IsoStorage()
    here = repository(images)
    await driver.attach(here)
    assert len(await driver.scan(here)) == 2
