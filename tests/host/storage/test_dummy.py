"""Repositories of type `dummy` on a real host, and growing disks of simulated ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host.clock import ManualClock, SystemClock
from domzero.host.hypervisor.spec import DiskFormat, DiskSource, Extent
from domzero.host.storage.dummy import INFO, DummyStorage
from domzero.host.storage.protocol import Repository, StorageDriver
from domzero.host.storage.sim import SimStorage
from tests.host.storage.disks import MIB, REPOSITORY, holds, opened, raw, refused, tool, uuid, write


async def made(driver: StorageDriver, **device_config: str) -> Repository:
    repository = Repository(REPOSITORY, device_config)
    await driver.create(repository, 0)
    await driver.attach(repository)
    return repository


async def test_it_needs_no_configuration_and_machines_can_use_its_disks(tmp_path: Path) -> None:
    driver: StorageDriver = DummyStorage(SystemClock(), tmp_path)
    assert driver.info() is INFO
    here = await made(driver)
    await driver.create_disk(here, uuid(1), 4 * MIB)
    source = await driver.source(here, uuid(1))
    assert source.format is DiskFormat.RAW
    write(source, 1)
    await driver.snapshot_disk(here, uuid(1), uuid(2), None)
    assert holds(await driver.source(here, uuid(2)), 1)
    assert (await driver.size(here)).physical_size == 1 << 40

    async def switch(source: DiskSource) -> None:
        raise AssertionError("the machine was asked")

    await refused(82, driver.snapshot_disk(here, uuid(1), uuid(3), switch))


async def test_its_size_is_what_it_is_told(tmp_path: Path) -> None:
    driver = DummyStorage(SystemClock(), tmp_path)
    for nonsense in ("-1", "much", "1e9", "9" * 40, "١"):
        await refused(1, driver.create(Repository(REPOSITORY, {"size": nonsense}), 0))
    here = await made(driver, size=str(8 * MIB))
    assert (await driver.size(here)).physical_size == 8 * MIB
    await driver.create_disk(here, uuid(1), 6 * MIB)
    await refused(44, driver.create_disk(here, uuid(2), 4 * MIB))
    await refused(44, driver.resize_disk(here, uuid(1), 9 * MIB))


async def test_failures_can_be_asked_for(tmp_path: Path) -> None:
    driver = DummyStorage(ManualClock(), tmp_path)
    here = await made(driver, **{"sim:fail-create-disk": "44 no room"})
    await refused(44, driver.create_disk(here, uuid(1), MIB))


async def test_disks_of_other_formats_are_copied_in(tmp_path: Path) -> None:
    driver = DummyStorage(SystemClock(), tmp_path)
    here = await made(driver)
    content = raw(tmp_path / "content", 4 * MIB, b"\7" * 65536)
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content.path, tmp_path / "image")
    sources = (
        DiskSource(tmp_path / "image", DiskFormat.QCOW2),
        content,
        DiskSource(Extent(content.path, 0, MIB), DiskFormat.RAW),
    )
    for number, source in enumerate(sources, start=1):
        await driver.copy_disk(source, here, uuid(number), 4 * MIB, lambda _: None)
        copy = await driver.source(here, uuid(number))
        assert copy.path.stat().st_size == 4 * MIB
        assert holds(copy, 7)
        assert holds(copy, 0, 2 * MIB)
    await refused(79, driver.copy_disk(sources[0], here, uuid(9), MIB, lambda _: None))
    assert len(await driver.scan(here)) == 3


async def test_a_simulated_machine_sees_its_disk_grow(tmp_path: Path) -> None:
    driver = SimStorage(ManualClock(), tmp_path)
    here = await opened(driver, tmp_path / "any")
    await driver.create_disk(here, uuid(1), MIB, {"image-format": "vhd"})
    asked: list[int] = []

    async def live(size: int) -> None:
        asked.append(size)

    assert (await driver.resize_disk(here, uuid(1), 3 * MIB, live)).virtual_size == 3 * MIB
    assert asked == [3 * MIB]
    assert await driver.merges(here) == []
    await refused(66, driver.create_disk(here, uuid(2), MIB, {"image-format": "vmdk"}))
    with pytest.raises(Exception, match="cannot do that"):
        await driver.probe({}, {})
