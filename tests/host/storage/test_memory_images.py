"""Memory images among the disks of a repository: the same for real and simulated ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.host.clock import ManualClock
from domzero.host.hypervisor.spec import DiskFormat
from domzero.host.storage.files.file import FileStorage
from domzero.host.storage.protocol import Repository, StorageDriver
from domzero.host.storage.sim import SimStorage
from tests.host.storage.disks import MIB, refused, repository, uuid


@pytest.fixture(params=["file", "sim"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[StorageDriver, Repository]]:
    driver: StorageDriver = FileStorage() if request.param == "file" else SimStorage(ManualClock(), tmp_path / "sim")
    made = repository(tmp_path / "sr")
    await driver.create(made, 0)
    await driver.attach(made)
    yield driver, made
    await driver.detach(made)


async def test_an_image_is_an_empty_file_that_grows(opened: tuple[StorageDriver, Repository]) -> None:
    driver, sr = opened
    made = await driver.create_image(sr, uuid(1))
    assert (made.uuid, made.location, made.virtual_size) == (uuid(1), uuid(1), 0)
    source = await driver.source(sr, made.location)
    assert source.format is DiskFormat.RAW
    assert source.path.read_bytes() == b""
    assert source.path.stat().st_mode & 0o777 == 0o600
    source.path.write_bytes(b"memory" * 1000)
    assert (await driver.update_disk(sr, made.location)).virtual_size == 6000
    assert [(disk.uuid, disk.virtual_size) for disk in await driver.scan(sr)] == [(uuid(1), 6000)]


async def test_an_image_survives_the_driver_and_goes_when_told(opened: tuple[StorageDriver, Repository]) -> None:
    driver, sr = opened
    await driver.create_image(sr, uuid(1))
    path = (await driver.source(sr, uuid(1))).path
    path.write_bytes(b"memory")
    await driver.detach(sr)
    await driver.attach(sr)
    assert path.read_bytes() == b"memory"
    assert (await driver.update_disk(sr, uuid(1))).virtual_size == 6
    await driver.destroy_disk(sr, uuid(1))
    await driver.destroy_disk(sr, uuid(1))
    assert not path.exists()
    assert await driver.scan(sr) == []
    await refused(144, driver.source(sr, uuid(1)))


async def test_images_and_disks_share_their_names(opened: tuple[StorageDriver, Repository]) -> None:
    driver, sr = opened
    await driver.create_disk(sr, uuid(1), MIB)
    await driver.create_image(sr, uuid(2))
    await refused(43, driver.create_image(sr, uuid(1)))
    await refused(43, driver.create_disk(sr, uuid(2), MIB))
    await refused(1, driver.create_image(sr, "../escape"))


async def test_a_repository_with_images_can_be_erased(opened: tuple[StorageDriver, Repository], tmp_path: Path) -> None:
    driver, sr = opened
    await driver.create_image(sr, uuid(1))
    directory = (await driver.source(sr, uuid(1))).path.parent
    await driver.destroy(sr)
    assert not directory.exists()
    await driver.create(sr, 0)
    await driver.attach(sr)


async def test_a_link_is_no_image(tmp_path: Path) -> None:
    driver = FileStorage()
    sr = repository(tmp_path / "sr")
    await driver.create(sr, 0)
    await driver.attach(sr)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "sr" / f"{uuid(1)}.memory").symlink_to(tmp_path / "secret")
    assert await driver.scan(sr) == []
    await refused(144, driver.source(sr, uuid(1)))
    await driver.detach(sr)
