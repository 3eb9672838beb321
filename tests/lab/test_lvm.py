"""The LVM driver with the kernel's device mapper, on a disk that may be written over."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domzero.host.storage.lvm.driver import LvmStorage
from domzero.host.storage.lvm.names import group_name
from domzero.host.storage.protocol import Repository
from tests.host.storage.disks import MIB, REPOSITORY, raw, refused, uuid
from tests.host.storage.dying import check, prepare, running_killer
from tests.host.storage.killed import DIED
from tests.host.storage.loops import loop_device, on, opened, read, write

EXTENT = 4 * MIB
STEPS = {"create": 3, "copy": 3, "grow": 4, "move": 4, "destroy": 1}


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout


def quiet(_: float) -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def disk() -> Iterator[Path]:
    device = Path(os.environ["DOMZERO_LAB_DISK"])
    yield device
    subprocess.run(["vgremove", "-ff", "-y", group_name(REPOSITORY)], check=False, capture_output=True)
    run("wipefs", "--all", device)


@pytest.fixture
async def driver(disk: Path) -> AsyncIterator[LvmStorage]:
    driver = LvmStorage()
    yield driver
    for uuid_ in list(driver._groups):
        await driver.detach(Repository(uuid_, {}))


async def test_disks_are_block_devices(driver: LvmStorage, disk: Path, tmp_path: Path) -> None:
    here = await opened(driver, on(disk))
    await driver.create_disk(here, uuid(1), 64 * MIB)
    source = await driver.source(here, uuid(1))
    assert source.place == Path(f"/dev/{group_name(REPOSITORY)}/LV-{uuid(1)}")
    write(source, 0, b"kept")
    await driver.copy_disk(raw(tmp_path / "image", MIB, b"copied"), here, uuid(2), 2 * MIB, quiet)
    assert read(await driver.source(here, uuid(2)), 0, EXTENT) == b"copied".ljust(EXTENT, b"\0")
    await driver.copy_disk(source, here, uuid(3), 64 * MIB, quiet)
    assert read(await driver.source(here, uuid(3)), 0, 4) == b"kept"
    await driver.detach(here)
    assert not source.path.exists()
    await driver.attach(here)
    assert {each.uuid for each in await driver.scan(here)} == {uuid(1), uuid(2), uuid(3)}
    assert read(await driver.source(here, uuid(1)), 0, 4) == b"kept"
    for number in (1, 2, 3):
        await driver.destroy_disk(here, uuid(number))
    await driver.destroy(here)
    assert "LVM" not in run("wipefs", disk)


async def test_a_disk_that_is_open_is_left_alone_but_grows(driver: LvmStorage, disk: Path) -> None:
    here = await opened(driver, on(disk))
    await driver.create_disk(here, uuid(1), EXTENT)
    await driver.create_disk(here, uuid(2), EXTENT)
    source = await driver.source(here, uuid(1))
    sizes: list[int] = []

    async def live(size: int) -> None:
        sizes.append(os.lseek(descriptor, 0, os.SEEK_END))
        assert sizes == [size]

    descriptor = os.open(source.path, os.O_RDWR)
    try:
        await refused(24, driver.destroy_disk(here, uuid(1)))
        await refused(24, driver.resize_disk(here, uuid(1), 4 * EXTENT))
        await refused(24, driver.detach(here))
        await driver.resize_disk(here, uuid(1), 4 * EXTENT, live)
        assert sizes == [4 * EXTENT]
        assert os.pread(descriptor, 3 * EXTENT, EXTENT) == bytes(3 * EXTENT)
    finally:
        os.close(descriptor)
    await driver.destroy_disk(here, uuid(1))


async def test_no_disk_ever_shows_what_another_held(driver: LvmStorage, disk: Path) -> None:
    here = await opened(driver, on(disk))
    await driver.create_disk(here, uuid(1), 256 * MIB)
    source = await driver.source(here, uuid(1))
    for offset in range(0, 256 * MIB, MIB):
        write(source, offset, b"somebody's secret")
    await driver.destroy_disk(here, uuid(1))
    await driver.create_disk(here, uuid(2), 128 * MIB)
    await driver.resize_disk(here, uuid(2), 256 * MIB)
    assert not any(read(await driver.source(here, uuid(2)), 0, 256 * MIB))


async def test_what_a_guest_keeps_in_its_disk_is_not_the_hosts(driver: LvmStorage, disk: Path) -> None:
    """A volume group inside a disk is neither activated nor in the way."""
    here = await opened(driver, on(disk))
    await driver.create_disk(here, uuid(1), 64 * MIB)
    source = await driver.source(here, uuid(1))
    inside = ["--config", "devices/scan_lvs=1", "--devices", str(source.path.resolve())]
    run("pvcreate", *inside, source.path.resolve())
    run("vgcreate", *inside, "guests", source.path.resolve())
    run("lvcreate", *inside, "--activate", "n", "--zero", "n", "--size", "8m", "--name", "root", "guests")
    await driver.detach(here)
    await driver.attach(here)
    await driver.source(here, uuid(1))
    run("udevadm", "settle")
    assert "guests" not in os.listdir("/dev")
    assert [each.uuid for each in await driver.probe({"device": str(disk)}, {})] == [REPOSITORY]
    await driver.destroy_disk(here, uuid(1))


async def test_other_volume_groups_are_not_touched(driver: LvmStorage, disk: Path, tmp_path: Path) -> None:
    with loop_device(tmp_path / "own") as own:
        run("pvcreate", own)
        run("vgcreate", "operators", own)
        run("lvcreate", "--yes", "--size", "8m", "--name", "data", "operators")
        try:
            before = run("vgs", "--noheadings", "-o", "vg_seqno,vg_free", "operators")
            here = await opened(driver, on(disk))
            await driver.create_disk(here, uuid(1), EXTENT)
            await driver.destroy_disk(here, uuid(1))
            await driver.destroy(here)
            await refused(16, driver.create(on(own, force="true"), 0))
            run("lvchange", "--activate", "n", "operators/data")
            await refused(42, driver.create(on(own), 0))
            assert run("vgs", "--noheadings", "-o", "vg_seqno,vg_free", "operators") == before
        finally:
            run("vgremove", "-ff", "--yes", "operators")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device as `prepare` makes it."""
    image = tmp_path_factory.mktemp("template") / "device"
    with loop_device(image, 64 * MIB) as device:
        asyncio.run(prepare(device, mapped=True))
    return image


@pytest.mark.parametrize("verb", STEPS)
async def test_dying_at_any_change_loses_and_leaks_nothing(template: Path, tmp_path: Path, verb: str) -> None:
    with running_killer(mapped=True) as killer:
        for step in range(1, STEPS[verb] + 1):
            run("cp", "--sparse=always", template, tmp_path / "device")
            with loop_device(tmp_path / "device", 64 * MIB) as device:
                assert killer.die(device, verb, step) == DIED
                disks = await check(device, verb, mapped=True)
            finished = step == STEPS[verb]
            assert (uuid(9) in disks) == (finished and verb in ("create", "copy"))
            assert (2 * EXTENT in disks.values()) == (finished and verb in ("grow", "move"))
