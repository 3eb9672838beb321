"""The LVM driver on loop devices, without device mapper: see tests/lab for the way with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource, Extent
from domzero.host.storage.lvm.driver import LvmStorage
from domzero.host.storage.lvm.names import group_name
from domzero.host.storage.protocol import DiskInfo, Repository, StorageDriver, StorageError
from tests.host.storage.disks import MIB, REPOSITORY, raw, refused, tool, uuid
from tests.host.storage.loops import loop_device, lvm, needs_lvm, on, opened, read, write

pytestmark = [needs_lvm, pytest.mark.root]

EXTENT = 4 * MIB
JUNK = b"somebody's secret" * 1024


def quiet(_: float) -> None:
    """Progress that nobody looks at."""


class Rig:
    """An attached repository on one device."""

    def __init__(self, driver: LvmStorage, device: Path) -> None:
        self.driver = driver
        self.device = device
        self.repository = on(device)

    async def create(self, number: int, size: int = EXTENT) -> DiskInfo:
        return await self.driver.create_disk(self.repository, uuid(number), size)

    async def source(self, number: int) -> DiskSource:
        return await self.driver.source(self.repository, uuid(number))

    async def disks(self) -> dict[str, int]:
        return {disk.uuid: disk.virtual_size for disk in await self.driver.scan(self.repository)}


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    with loop_device(tmp_path / "device") as found:
        yield found


@pytest.fixture
async def rig(device: Path) -> AsyncIterator[Rig]:
    driver: StorageDriver = LvmStorage(mapped=False)
    assert isinstance(driver, LvmStorage)
    rig = Rig(driver, device)
    await opened(driver, rig.repository)
    yield rig
    await driver.detach(rig.repository)


async def test_a_disk_is_made_and_kept_and_goes(rig: Rig) -> None:
    made = await rig.create(1, 5 * MIB)
    assert made.virtual_size == 2 * EXTENT
    assert made.sm_config == {"image-format": "raw"}
    source = await rig.source(1)
    assert source.format is DiskFormat.RAW
    assert isinstance(source.place, Extent)
    assert source.place.length == 2 * EXTENT
    write(source, MIB, b"kept")
    await rig.driver.detach(rig.repository)
    await refused(47, rig.driver.scan(rig.repository))
    await rig.driver.attach(rig.repository)
    assert await rig.disks() == {uuid(1): 2 * EXTENT}
    assert read(await rig.source(1), MIB, 4) == b"kept"
    assert await rig.driver.update_disk(rig.repository, uuid(1)) == made
    await rig.driver.destroy_disk(rig.repository, uuid(1))
    await rig.driver.destroy_disk(rig.repository, uuid(1))
    await refused(144, rig.source(1))
    assert await rig.disks() == {}


async def test_sizes_are_those_of_the_group(rig: Rig) -> None:
    before = await rig.driver.size(rig.repository)
    await rig.create(1, 16 * MIB)
    after = await rig.driver.size(rig.repository)
    assert 200 * MIB < before.physical_size == after.physical_size < 256 * MIB
    assert (before.physical_utilisation, before.virtual_allocation) == (0, 0)
    assert (after.physical_utilisation, after.virtual_allocation) == (16 * MIB, 16 * MIB)


@pytest.mark.slow
async def test_no_disk_ever_shows_what_another_held(rig: Rig, tmp_path: Path) -> None:
    """New, copied and grown disks in a group whose free space is full of somebody else's data."""
    await rig.create(1, 200 * MIB)
    source = await rig.source(1)
    for extent in range(50):
        write(source, extent * EXTENT, JUNK)
    await rig.driver.destroy_disk(rig.repository, uuid(1))
    await rig.create(2, 8 * MIB)
    image = raw(tmp_path / "image", MIB + 512, b"copied")
    await rig.driver.copy_disk(image, rig.repository, uuid(3), 8 * MIB, quiet)
    assert read(await rig.source(2), 0, 8 * MIB) == bytes(8 * MIB)
    assert read(await rig.source(3), 0, 8 * MIB) == b"copied" + bytes(8 * MIB - 6)
    await rig.driver.resize_disk(rig.repository, uuid(3), 16 * MIB)
    await rig.driver.resize_disk(rig.repository, uuid(2), 16 * MIB)
    assert read(await rig.source(2), 0, 16 * MIB) == bytes(16 * MIB)
    assert read(await rig.source(3), 0, 16 * MIB) == b"copied" + bytes(16 * MIB - 6)


@pytest.mark.slow
async def test_a_disk_grows_in_place_or_elsewhere(rig: Rig) -> None:
    await rig.create(1)
    write(await rig.source(1), 0, JUNK)
    first = await rig.source(1)
    grown = await rig.driver.resize_disk(rig.repository, uuid(1), 2 * EXTENT - 1)
    assert grown.virtual_size == 2 * EXTENT
    beside = await rig.source(1)
    assert isinstance(first.place, Extent)
    assert isinstance(beside.place, Extent)
    assert beside.place.offset == first.place.offset
    await rig.create(2)
    assert (await rig.driver.resize_disk(rig.repository, uuid(1), 4 * EXTENT)).virtual_size == 4 * EXTENT
    moved = await rig.source(1)
    assert isinstance(moved.place, Extent)
    assert moved.place.offset > beside.place.offset
    assert read(moved, 0, 4 * EXTENT) == JUNK + bytes(4 * EXTENT - len(JUNK))
    assert await rig.disks() == {uuid(1): 4 * EXTENT, uuid(2): EXTENT}
    await refused(79, rig.driver.resize_disk(rig.repository, uuid(1), EXTENT))
    await refused(144, rig.driver.resize_disk(rig.repository, uuid(9), EXTENT))
    await refused(144, rig.driver.resize_disk(rig.repository, "../x", EXTENT))


@pytest.mark.slow
async def test_a_disk_in_use_grows_before_its_domain_hears_of_it_and_never_moves(rig: Rig) -> None:
    await rig.create(1)
    heard: list[tuple[int, int]] = []

    async def live(size: int) -> None:
        source = await rig.source(1)
        assert isinstance(source.place, Extent)
        heard.append((size, source.place.length))

    await rig.driver.resize_disk(rig.repository, uuid(1), 2 * EXTENT, live)
    assert heard == [(2 * EXTENT, 2 * EXTENT)]
    await rig.create(2)
    await refused(44, rig.driver.resize_disk(rig.repository, uuid(1), 4 * EXTENT, live))
    assert len(heard) == 1
    assert await rig.disks() == {uuid(1): 2 * EXTENT, uuid(2): EXTENT}


@pytest.mark.slow
async def test_a_copy_holds_what_its_source_held(rig: Rig, tmp_path: Path) -> None:
    image = tmp_path / "odd,name.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    tool("qemu-io", "-c", "write -q -P 7 1M 64k", image)
    seen: list[float] = []
    await rig.driver.copy_disk(DiskSource(image, DiskFormat.QCOW2), rig.repository, uuid(1), 8 * MIB, seen.append)
    assert seen[-1] == 1.0
    assert read(await rig.source(1), MIB - 1, 65538) == b"\0" + b"\7" * 65536 + b"\0"
    await rig.driver.copy_disk(await rig.source(1), rig.repository, uuid(2), 8 * MIB, quiet)
    assert read(await rig.source(2), MIB - 1, 65538) == b"\0" + b"\7" * 65536 + b"\0"


@pytest.mark.slow
async def test_what_does_not_fit_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    await rig.create(1)
    await refused(44, rig.create(2, 1 << 40))
    await refused(79, rig.create(2, 0))
    await refused(79, rig.create(2, 1 << 62))
    large = raw(tmp_path / "large", 300 * MIB)
    await refused(44, rig.driver.copy_disk(large, rig.repository, uuid(2), 300 * MIB, quiet))
    await refused(79, rig.driver.copy_disk(large, rig.repository, uuid(2), EXTENT, quiet))
    await refused(44, rig.driver.resize_disk(rig.repository, uuid(1), 1 << 40))
    assert await rig.disks() == {uuid(1): EXTENT}
    assert (await rig.driver.size(rig.repository)).physical_utilisation == EXTENT


async def test_what_is_there_is_not_made_again(rig: Rig, tmp_path: Path) -> None:
    await rig.create(1)
    write(await rig.source(1), 0, b"kept")
    await refused(43, rig.create(1))
    await refused(43, rig.driver.copy_disk(raw(tmp_path / "x", MIB), rig.repository, uuid(1), MIB, quiet))
    assert read(await rig.source(1), 0, 4) == b"kept"
    await refused(1, rig.driver.create_disk(rig.repository, "a/b\n", MIB))
    await refused(66, rig.driver.create_disk(rig.repository, uuid(2), MIB, {"image-format": "qcow2"}))
    await refused(38, rig.driver.clone_disk(rig.repository, uuid(1), uuid(2)))
    await refused(38, rig.driver.create_image(rig.repository, uuid(2)))


@pytest.mark.slow
async def test_two_at_once_get_a_disk_each(rig: Rig) -> None:
    results = await asyncio.gather(*(rig.create(number % 4) for number in range(8)), return_exceptions=True)
    assert sum(isinstance(result, DiskInfo) for result in results) == 4
    assert sorted(error.number for error in results if isinstance(error, StorageError)) == [43] * 4
    assert len(await rig.disks()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["create", "copy", "resize", "move"])
async def test_cancelling_leaves_nothing(rig: Rig, tmp_path: Path, verb: str) -> None:
    """At whatever change the call is cancelled, there is no new disk, and no space that belongs to none."""
    await rig.create(1)
    await rig.create(2)
    image = raw(tmp_path / "image", EXTENT, b"x")
    for last in range(1, 10):
        work = asyncio.ensure_future(_work(rig, verb, image))
        steps = Cancelling(work, last)
        rig.driver._groups[REPOSITORY].step = steps
        await asyncio.wait({work})
        if steps.left > 0:
            assert work.exception() is None
            return
        disks = await rig.disks()
        assert (uuid(9) in disks) == (steps.reached[-1] == "disk published")
        assert (await rig.driver.size(rig.repository)).physical_utilisation == sum(disks.values())
        await rig.driver.destroy_disk(rig.repository, uuid(9))
    pytest.fail("it never came to its end")


class Cancelling:
    """Cancels work at a chosen change."""

    def __init__(self, work: asyncio.Future[DiskInfo], last: int) -> None:
        self.work = work
        self.left = last
        self.reached: list[str] = []

    def __call__(self, what: str) -> None:
        self.reached.append(what)
        self.left -= 1
        if self.left == 0:
            self.work.cancel()


async def _work(rig: Rig, verb: str, image: DiskSource) -> DiskInfo:
    if verb == "create":
        return await rig.create(9)
    if verb == "copy":
        return await rig.driver.copy_disk(image, rig.repository, uuid(9), EXTENT, quiet)
    number = 1 if verb == "move" else 2
    return await rig.driver.resize_disk(rig.repository, uuid(number), 2 * EXTENT)


@pytest.mark.slow
async def test_a_copy_whose_tool_is_killed_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(64 * MIB))
    killed: list[int] = []

    def kill(_: float) -> None:
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "qemu-img":
                os.kill(int(child), signal.SIGKILL)
                killed.append(int(child))

    source = DiskSource(image, DiskFormat.RAW)
    await refused(202, rig.driver.copy_disk(source, rig.repository, uuid(1), 64 * MIB, kill))
    assert killed
    assert await rig.disks() == {}
    assert (await rig.driver.size(rig.repository)).physical_utilisation == 0


@pytest.mark.slow
async def test_the_devices_of_an_attached_repository_are_taken(rig: Rig, device: Path) -> None:
    other = Repository(uuid(200), {"device": str(device), "force": "true"})
    await refused(16, LvmStorage(mapped=False).create(other, 0))
    await refused(16, rig.driver.create(other, 0))
    with pytest.raises(subprocess.CalledProcessError):
        tool("mkfs.ext4", "-q", "-F", device)
    await rig.create(1)
    assert len(await rig.disks()) == 1


@pytest.mark.slow
async def test_only_an_empty_repository_is_destroyed(rig: Rig) -> None:
    await rig.create(1)
    await refused(39, rig.driver.destroy(rig.repository))
    await rig.driver.destroy_disk(rig.repository, uuid(1))
    lvm("lvcreate", rig.device, "-an", "-Zn", "-Wn", "-L4m", "-nforeign", "--addtag", "a=/&#!b", group_name(REPOSITORY))
    assert await rig.disks() == {}
    await refused(39, rig.driver.destroy(rig.repository))
    lvm("lvremove", rig.device, "-y", f"{group_name(REPOSITORY)}/foreign")
    await rig.driver.destroy(rig.repository)
    await refused(47, rig.driver.attach(rig.repository))
    assert await rig.driver.probe(rig.repository.device_config, {}) == []


@pytest.mark.slow
async def test_another_process_cannot_have_it_too(rig: Rig) -> None:
    await refused(16, LvmStorage(mapped=False).attach(rig.repository))
    await rig.driver.attach(rig.repository)
    await rig.driver.detach(rig.repository)
    await rig.driver.detach(rig.repository)
    other = LvmStorage(mapped=False)
    await other.attach(rig.repository)
    await other.detach(rig.repository)
