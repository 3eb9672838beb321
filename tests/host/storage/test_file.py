"""Repositories of type `file`, with the real qemu-img."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat
from domzero.host.storage.files import layers
from domzero.host.storage.files.file import INFO, FileStorage
from domzero.host.storage.files.marker import MARKER
from domzero.host.storage.files.place import Ownership
from domzero.host.storage.protocol import Repository, StorageDriver
from tests.host.storage.disks import MIB, REPOSITORY, Shelf, holds, opened, refused, repository, uuid, write


async def test_a_repository_is_made_found_again_and_erased(tmp_path: Path) -> None:
    driver: StorageDriver = FileStorage()
    made = repository(tmp_path / "sr")
    await driver.create(made, 0)
    await driver.attach(made)
    await driver.attach(made)
    await driver.create_disk(made, uuid(1), MIB)
    await driver.detach(made)
    await driver.detach(made)
    await refused(47, driver.scan(made))
    again = FileStorage()
    await again.attach(made)
    assert [disk.uuid for disk in await again.scan(made)] == [uuid(1)]
    await refused(16, driver.attach(made))
    await again.destroy(made)
    assert not (tmp_path / "sr").exists()
    await refused(47, again.attach(made))


async def test_attaching_twice_at_once(tmp_path: Path) -> None:
    driver, made = FileStorage(), repository(tmp_path / "sr")
    await driver.create(made, 0)
    await asyncio.gather(driver.attach(made), driver.attach(made))
    await driver.detach(made)
    await FileStorage().attach(made)


async def test_erasing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    driver = FileStorage()
    made = await opened(driver, tmp_path)
    await driver.create_disk(made, uuid(1), MIB)
    (tmp_path / "letter.txt").touch()
    await driver.detach(made)
    await driver.destroy(made)
    assert sorted(os.listdir(tmp_path)) == ["letter.txt", "lost+found"]


async def test_a_killed_creation_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / f"{MARKER}.tmp").write_text("half")
    driver = FileStorage()
    made = await opened(driver, tmp_path)
    assert os.listdir(tmp_path) == [MARKER]
    await driver.detach(made)


async def test_a_directory_in_use_or_missing_is_refused(tmp_path: Path) -> None:
    driver = FileStorage()
    await refused(61, driver.create(repository(tmp_path / "no" / "such"), 0))
    (tmp_path / "file").touch()
    await refused(47, driver.create(repository(tmp_path / "file"), 0))
    await refused(16, driver.create(repository(tmp_path), 0))
    await refused(47, driver.attach(repository(tmp_path)))
    await driver.create(repository(tmp_path / "sr"), 0)
    await refused(42, driver.create(repository(tmp_path / "sr"), 0))
    other = Repository(uuid(9), {"location": str(tmp_path / "sr")})
    assert "another repository" in await refused(47, driver.attach(other))
    (tmp_path / "sr" / MARKER).write_text("[]")
    await refused(47, driver.attach(repository(tmp_path / "sr")))


@pytest.mark.parametrize("location", [None, "", "sr", "./sr", "/srv/../etc", "/srv/", "//srv", "/", "/srv\0", "/a//b"])
async def test_tricky_locations_are_refused(location: str | None) -> None:
    config = {} if location is None else {"location": location}
    await refused(94, FileStorage().create(Repository(REPOSITORY, config), 0))
    await refused(94, FileStorage().attach(Repository(REPOSITORY, config)))


async def test_sizes_are_those_of_the_medium(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), 5 * MIB)
    await shelf.driver.create_disk(shelf.repository, uuid(2), 7 * MIB)
    size = await shelf.driver.size(shelf.repository)
    medium = os.statvfs(shelf.directory)
    assert size.physical_size == medium.f_blocks * medium.f_frsize
    assert 0 < size.physical_utilisation < size.physical_size
    assert size.virtual_allocation == 12 * MIB
    again = FileStorage()
    await shelf.driver.detach(shelf.repository)
    await again.attach(shelf.repository)
    assert (await again.size(shelf.repository)).virtual_allocation == 12 * MIB
    await again.detach(shelf.repository)
    await shelf.driver.attach(shelf.repository)
    before = await shelf.driver.update_disk(shelf.repository, uuid(1))
    write(await shelf.source(1), 1)
    after = await shelf.driver.update_disk(shelf.repository, uuid(1))
    grown = os.stat(shelf.directory / f"{uuid(1)}.qcow2").st_blocks * 512
    assert after.physical_utilisation == grown >= before.physical_utilisation + 65536


def test_what_the_driver_says_of_itself() -> None:
    assert FileStorage().info() is INFO
    assert list(INFO.capabilities) == sorted(set(INFO.capabilities))
    assert "location" in INFO.configuration


async def test_the_machines_user_owns_the_disks(tmp_path: Path) -> None:
    driver = FileStorage(owner=Ownership(os.getuid(), os.getgid()))
    made = await opened(driver, tmp_path / "sr")
    await driver.create_disk(made, uuid(1), MIB)
    write(await driver.source(made, uuid(1)), 1)
    await driver.clone_disk(made, uuid(1), uuid(2))
    files = [path for path in (tmp_path / "sr").iterdir() if path.name != MARKER]
    assert len(files) == 3
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    assert oct((tmp_path / "sr").stat().st_mode & 0o777) == "0o710"
    await driver.detach(made)


# Disks


async def test_a_new_disk_is_blank_and_its_size_rounded_up(shelf: Shelf) -> None:
    info = await shelf.driver.create_disk(shelf.repository, uuid(1), MIB + 1)
    assert (info.uuid, info.location, info.virtual_size) == (uuid(1), uuid(1), MIB + 512)
    assert await shelf.driver.scan(shelf.repository) == [info]
    assert holds(await shelf.source(1), 0)
    source = await shelf.source(1)
    assert (source.path, source.format) == (shelf.directory / f"{uuid(1)}.qcow2", DiskFormat.QCOW2)
    await refused(43, shelf.driver.create_disk(shelf.repository, uuid(1), MIB))
    assert holds(await shelf.source(1), 0)


@pytest.mark.parametrize("size", [0, -1, (64 << 40) + 1])
async def test_impossible_sizes_are_refused(shelf: Shelf, size: int) -> None:
    await refused(79, shelf.driver.create_disk(shelf.repository, uuid(1), size))
    assert shelf.files() == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "x", uuid(1).upper().replace("0", "A"), uuid(1) + "\n"])
async def test_names_that_are_no_uuids_go_nowhere(shelf: Shelf, name: str) -> None:
    driver = shelf.driver
    await refused(144, driver.source(shelf.repository, name))
    await refused(144, driver.clone_disk(shelf.repository, name, uuid(2)))
    await refused(144, driver.resize_disk(shelf.repository, name, MIB))
    await driver.destroy_disk(shelf.repository, name)
    await refused(1, driver.create_disk(shelf.repository, name, MIB))
    assert shelf.files() == []


async def test_what_is_missing_is_named(shelf: Shelf) -> None:
    driver = shelf.driver
    for call in (driver.source, driver.update_disk):
        await refused(144, call(shelf.repository, uuid(1)))
    await refused(144, driver.clone_disk(shelf.repository, uuid(1), uuid(2)))
    await refused(144, driver.resize_disk(shelf.repository, uuid(1), MIB))
    await driver.destroy_disk(shelf.repository, uuid(1))
    assert shelf.files() == []


async def test_a_clone_shares_and_then_goes_its_own_way(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), 4 * MIB)
    write(await shelf.source(1), 1)
    info = await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    assert info.virtual_size == 4 * MIB
    assert shelf.bases() == 1
    write(await shelf.source(1), 2)
    write(await shelf.source(2), 3)
    assert holds(await shelf.source(1), 2)
    assert holds(await shelf.source(2), 3)
    await shelf.driver.clone_disk(shelf.repository, uuid(2), uuid(3))
    assert await shelf.numbers() == {1, 2, 3}
    assert holds(await shelf.source(3), 3)
    await refused(43, shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(3)))
    await refused(43, shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(1)))
    assert holds(await shelf.source(3), 3)
    backing = {layers.read_layer(shelf.directory, name).header.backing for name in shelf.files()}
    assert all(name is None or "/" not in name for name in backing)


@pytest.mark.slow
async def test_cloning_an_unchanged_disk_again_makes_no_longer_chain(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    assert shelf.bases() == 0
    write(await shelf.source(1), 1)
    for number in range(3, 40):
        await shelf.driver.clone_disk(shelf.repository, uuid(number - 2 if number > 4 else 1), uuid(number))
    assert shelf.bases() == 1
    assert holds(await shelf.source(39), 1)


@pytest.mark.slow
async def test_parallel_clones_of_one_disk_all_succeed(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    write(await shelf.source(1), 1)
    work = [shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(number)) for number in range(2, 8)]
    await asyncio.gather(*work, shelf.driver.scan(shelf.repository), shelf.driver.scan(shelf.repository))
    assert await shelf.numbers() == set(range(1, 8))
    for number in range(1, 8):
        assert holds(await shelf.source(number), 1)


async def test_destroying_takes_the_parents_that_nobody_needs(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    for number in range(2, 5):
        write(await shelf.source(1), number)
        await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(number), None)
    assert shelf.bases() == 3
    await shelf.driver.destroy_disk(shelf.repository, uuid(1))
    assert shelf.bases() == 3
    await shelf.driver.destroy_disk(shelf.repository, uuid(4))
    assert shelf.bases() == 2
    assert holds(await shelf.source(2), 2)
    assert holds(await shelf.source(3), 3)
    await shelf.driver.destroy_disk(shelf.repository, uuid(2))
    assert holds(await shelf.source(3), 3)
    await shelf.driver.destroy_disk(shelf.repository, uuid(3))
    assert shelf.files() == []


@pytest.mark.slow
async def test_a_chain_has_its_limit(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    for number in range(2, layers.CHAIN_LIMIT + 1):
        write(await shelf.source(1), number)
        await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(number), None)
    write(await shelf.source(1), 99)
    before = shelf.files()
    await refused(109, shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(1000), None))
    assert shelf.files() == before
    assert holds(await shelf.source(1), 99)


async def test_resizing_grows_only(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    write(await shelf.source(1), 1)
    await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    assert (await shelf.driver.resize_disk(shelf.repository, uuid(2), 3 * MIB + 5)).virtual_size == 3 * MIB + 512
    assert (await shelf.driver.resize_disk(shelf.repository, uuid(2), 3 * MIB + 512)).virtual_size == 3 * MIB + 512
    assert holds(await shelf.source(2), 1)
    assert holds(await shelf.source(2), 0, 2 * MIB)
    await refused(79, shelf.driver.resize_disk(shelf.repository, uuid(2), MIB))
    await shelf.driver.clone_disk(shelf.repository, uuid(2), uuid(3))
    assert (await shelf.driver.update_disk(shelf.repository, uuid(3))).virtual_size == 3 * MIB + 512
