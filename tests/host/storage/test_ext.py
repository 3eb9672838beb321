"""Repositories of type `ext`, on image files and loop devices of this machine."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from domzero.host.process import run
from domzero.host.storage.files.ext import INFO, ExtStorage, format_arguments, identify
from domzero.host.storage.files.marker import MARKER
from domzero.host.storage.mounts import mounted_at
from domzero.host.storage.protocol import Repository, StorageError
from tests.host.storage.disks import MIB, REPOSITORY, holds, raw, refused, tool, uuid, write

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="mounts file systems from loop devices"
    ),
]


class Shop:
    """An image file and a driver that makes a repository of it."""

    def __init__(self, tmp_path: Path) -> None:
        self.image = raw(tmp_path / "image", 64 * MIB).path
        self.mounts = tmp_path / "mounts"
        self.point = self.mounts / REPOSITORY
        self.driver = ExtStorage(self.mounts)
        self.repository = Repository(REPOSITORY, {"device": str(self.image)})

    def named(self, device: object, **more: str) -> Repository:
        return Repository(REPOSITORY, {"device": str(device), **more})


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(tmp_path)
    yield made
    await made.driver.detach(made.repository)
    assert mounted_at(made.point) is None


@pytest.fixture
def loop(shop: Shop) -> Iterator[Path]:
    """The image as a block device."""
    device = Path(tool("losetup", "--find", "--show", shop.image).strip())
    yield device
    tool("losetup", "--detach", device)


def devices_of(image: Path) -> str:
    return tool("losetup", "--associated", image)


async def test_a_repository_is_made_used_found_again_and_erased(shop: Shop) -> None:
    driver, here = shop.driver, shop.repository
    await driver.create(here, 0)
    assert mounted_at(shop.point) is None
    await driver.attach(here)
    await driver.attach(here)
    await driver.create_disk(here, uuid(1), 4 * MIB)
    write(await driver.source(here, uuid(1)), 1)
    await driver.clone_disk(here, uuid(1), uuid(2))
    size = await driver.size(here)
    assert 32 * MIB < size.physical_size < 64 * MIB
    assert size.virtual_allocation == 8 * MIB
    again = ExtStorage(shop.mounts)
    await refused(16, again.attach(here))
    assert mounted_at(shop.point) is not None
    await driver.detach(here)
    assert not shop.point.exists()
    assert devices_of(shop.image) == ""
    await again.attach(here)
    assert {disk.uuid for disk in await again.scan(here)} == {uuid(1), uuid(2)}
    assert holds(await again.source(here, uuid(2)), 1)
    (found,) = await again.probe(here.device_config, {})
    assert (found.uuid, found.size, found.devices) == (REPOSITORY, 64 * MIB, (str(shop.image),))
    await again.destroy(here)
    assert await identify(shop.image) == {}
    assert await again.probe(here.device_config, {}) == []
    await refused(47, again.attach(here))
    await driver.create(here, 0)


async def test_a_daemon_that_died_finds_its_mount(shop: Shop) -> None:
    await shop.driver.create(shop.repository, 0)
    await shop.driver.attach(shop.repository)
    await shop.driver.create_disk(shop.repository, uuid(1), MIB)
    os.close(shop.driver._places[REPOSITORY].descriptor)  # as the kernel does for a process that is killed
    again = ExtStorage(shop.mounts)
    await again.attach(shop.repository)
    assert [disk.uuid for disk in await again.scan(shop.repository)] == [uuid(1)]
    shop.driver._places.clear()
    await again.detach(shop.repository)


@pytest.mark.slow
async def test_what_a_killed_creation_leaves_can_be_taken_or_destroyed(shop: Shop) -> None:
    await run(format_arguments(shop.image, uuid(7)))
    left = shop.mounts / uuid(7)
    left.mkdir(parents=True)
    tool("mount", "-o", "loop", shop.image, left)
    (left / f"{MARKER}.tmp").touch()
    said = await refused(55, shop.driver.create(shop.repository, 0))
    assert "force" in said
    assert mounted_at(left) is None
    unfinished = Repository(uuid(7), shop.repository.device_config)
    await shop.driver.destroy(unfinished)
    assert await identify(shop.image) == {}
    await shop.driver.destroy(unfinished)
    await shop.driver.create(shop.repository, 0)
    await shop.driver.attach(shop.repository)
    await refused(16, shop.driver.create(shop.named(shop.image, force="true"), 0))
    assert await shop.driver.scan(shop.repository) == []


async def test_a_block_device_is_found_under_another_name(shop: Shop, loop: Path, tmp_path: Path) -> None:
    link = tmp_path / "by-id"
    link.symlink_to(loop)
    await shop.driver.create(shop.named(link), 0)
    await shop.driver.attach(shop.named(loop))
    here = mounted_at(shop.point)
    assert here is not None
    assert here.source == str(loop)
    await refused(16, shop.driver.create(shop.named(loop, force="true"), 0))
    await shop.driver.detach(shop.named(loop))


async def test_nothing_is_formatted_by_accident(shop: Shop, tmp_path: Path) -> None:
    tool("mkfs.ext4", "-q", "-F", "-L", "precious", shop.image)
    before = await identify(shop.image)
    said = await refused(55, shop.driver.create(shop.repository, 0))
    assert "ext4" in said
    assert "force" in said
    assert await identify(shop.image) == before
    await refused(55, shop.driver.create(shop.named(shop.image, force="yes"), 0))
    await shop.driver.create(shop.named(shop.image, force="true"), 0)
    assert (await identify(shop.image))["UUID"] == REPOSITORY
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\3\0", 2048, 65536)
    partitions = raw(tmp_path / "partitions", 64 * MIB, bytes(446) + entry + bytes(48) + b"\x55\xaa").path
    await refused(55, shop.driver.create(shop.named(partitions), 0))
    assert "PTTYPE" in await identify(partitions)


async def test_what_is_in_use_is_refused(shop: Shop, loop: Path, tmp_path: Path) -> None:
    await refused(16, shop.driver.create(shop.repository, 0))  # the image, of which there is a loop device
    tool("mkfs.ext4", "-q", loop)
    (tmp_path / "elsewhere").mkdir()
    tool("mount", loop, tmp_path / "elsewhere")
    try:
        await refused(16, shop.driver.create(shop.named(loop, force="true"), 0))
    finally:
        tool("umount", tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "device", ["/dev/null", "/etc", "/no/such/device", "dev/sda", "/dev/../dev/sda", "/dev/sda,/dev/sdb", "/dev/sd\n"]
)
async def test_what_is_no_device_is_refused(shop: Shop, device: str) -> None:
    await refused(91, shop.driver.create(shop.named(device), 0))
    await refused(91, shop.driver.probe({"device": device}, {}))
    assert not shop.mounts.exists()


async def test_without_a_device_there_is_a_menu(shop: Shop) -> None:
    for call in (shop.driver.create(Repository(REPOSITORY, {}), 0), shop.driver.probe({}, {})):
        with pytest.raises(StorageError) as caught:
            await call
        assert caught.value.number == 90
        assert ET.fromstring(caught.value.menu).tag == "Devlist"


async def test_another_repository_is_not_mounted(shop: Shop) -> None:
    await shop.driver.create(shop.repository, 0)
    other = Repository(uuid(9), {"device": str(shop.image)})
    await refused(47, shop.driver.attach(other))
    await refused(47, shop.driver.destroy(other))
    assert (await identify(shop.image))["UUID"] == REPOSITORY
    assert mounted_at(shop.mounts / uuid(9)) is None


async def test_a_file_system_of_ours_with_another_repository_in_it(shop: Shop) -> None:
    """Somebody changed what the mark in it says: it is let go of again."""
    await shop.driver.create(shop.repository, 0)
    await shop.driver.attach(shop.repository)
    (shop.point / MARKER).write_text('{"repository": "other"}')
    await shop.driver.detach(shop.repository)
    await refused(47, shop.driver.attach(shop.repository))
    assert mounted_at(shop.point) is None


async def test_a_failure_in_making_leaves_a_blank_device(shop: Shop) -> None:
    small = raw(shop.image.parent / "small", 20 * 1024).path
    await refused(57, shop.driver.create(shop.named(small), 0))
    assert await identify(small) == {}
    shop.point.mkdir(parents=True)
    tool("mount", "-t", "tmpfs", "none", shop.point)
    try:
        await refused(16, shop.driver.create(shop.repository, 0))
    finally:
        tool("umount", shop.point)


async def test_a_repository_in_use_is_not_let_go(shop: Shop) -> None:
    await shop.driver.create(shop.repository, 0)
    await shop.driver.attach(shop.repository)
    await shop.driver.create_disk(shop.repository, uuid(1), MIB)
    with (await shop.driver.source(shop.repository, uuid(1))).path.open("rb"):
        await refused(16, shop.driver.detach(shop.repository))
        assert mounted_at(shop.point) is not None
        await shop.driver.attach(shop.repository)
        assert [disk.uuid for disk in await shop.driver.scan(shop.repository)] == [uuid(1)]
    await shop.driver.detach(shop.repository)


@pytest.mark.slow
async def test_a_full_file_system_is_said_and_leaves_nothing(shop: Shop, tmp_path: Path) -> None:
    driver, here = shop.driver, shop.repository
    await driver.create(here, 0)
    await driver.attach(here)
    source = raw(tmp_path / "content", 80 * MIB, os.urandom(80 * MIB))
    await refused(44, driver.copy_disk(source, here, uuid(1), 80 * MIB, lambda _: None))
    assert await driver.scan(here) == []
    assert {path.name for path in shop.point.iterdir()} == {MARKER, "lost+found"}


def test_what_the_driver_says_of_itself(tmp_path: Path) -> None:
    assert ExtStorage(tmp_path).info() is INFO
    assert {"SR_PROBE", "VDI_SNAPSHOT", "VDI_RESIZE_ONLINE"} <= set(INFO.capabilities)
    assert format_arguments(Path("/dev/sdb"), REPOSITORY)[-3:] == ["-L", "domzero-11111111", Path("/dev/sdb")]


async def test_the_tools_are_there() -> None:
    """Each is a package of its own on some systems."""
    for program in ("mkfs.ext4", "blkid", "wipefs", "losetup", "mount", "umount", "lsblk"):
        await run(["sh", "-c", 'command -v "$0"', program])
