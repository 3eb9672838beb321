"""The simulated repository: the contract, and the faults that a tester asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from domzero.host.clock import ManualClock
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import sim
from domzero.host.storage.protocol import Repository, StorageDriver
from domzero.host.storage.sim import SimStorage
from domzero.host.storage.sim_faults import KEYS, VERBS
from tests.host.storage.disks import MIB, REPOSITORY, raw, refused, uuid

HERE = Repository(REPOSITORY, {"location": "/anywhere"})


def with_faults(**faults: str) -> Repository:
    return Repository(
        REPOSITORY, {"location": "/anywhere", **{f"sim:{key.replace('_', '-')}": faults[key] for key in faults}}
    )


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[SimStorage]:
    driver = SimStorage(ManualClock(), tmp_path / "sim")
    await driver.create(HERE, 0)
    await driver.attach(HERE)
    yield driver
    await driver.detach(HERE)


def used(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*.raw"))


async def test_disks_take_no_space_and_outlive_the_daemon(driver: SimStorage, tmp_path: Path) -> None:
    info = await driver.create_disk(HERE, uuid(1), (8 << 30) + 1)
    assert (info.uuid, info.location, info.virtual_size) == (uuid(1), uuid(1), (8 << 30) + 512)
    await driver.clone_disk(HERE, uuid(1), uuid(2))
    assert used(tmp_path) == 0
    again: StorageDriver = SimStorage(ManualClock(), tmp_path / "sim")
    await refused(47, again.scan(HERE))
    await again.attach(HERE)
    assert [disk.uuid for disk in await again.scan(HERE)] == [uuid(1), uuid(2)]
    size = await again.size(HERE)
    assert (size.virtual_allocation, size.physical_size) == (2 * info.virtual_size, 1 << 40)
    await again.destroy(HERE)
    assert list((tmp_path / "sim").iterdir()) == []
    await refused(47, again.attach(HERE))


async def test_content_is_copied_and_then_goes_its_own_way(driver: SimStorage, tmp_path: Path) -> None:
    source = raw(tmp_path / "image", 64 * MIB, b"\7" * MIB)
    seen: list[float] = []
    await driver.copy_disk(source, HERE, uuid(1), 128 * MIB, seen.append)
    assert seen[-1] == 1
    told: list[DiskSource] = []

    async def switch(source: DiskSource) -> None:
        told.append(source)

    await driver.snapshot_disk(HERE, uuid(1), uuid(2), switch)
    assert len(told) == 1
    first, second = [await driver.source(HERE, uuid(number)) for number in (1, 2)]
    _write(first.path, b"\1")
    assert (_read(first.path), _read(second.path)) == (b"\1\7", b"\7\7")
    assert (await driver.update_disk(HERE, uuid(2))).virtual_size == 128 * MIB
    assert used(tmp_path / "sim") <= 3 * MIB
    await driver.destroy_disk(HERE, uuid(1))
    await driver.destroy_disk(HERE, uuid(1))
    assert [disk.uuid for disk in await driver.scan(HERE)] == [uuid(2)]


async def test_refusals_have_the_numbers_of_the_file_driver(driver: SimStorage, tmp_path: Path) -> None:
    await refused(42, driver.create(HERE, 0))
    await refused(94, driver.create(Repository(uuid(7), {}), 0))
    await refused(1, driver.create(Repository("../x", {"location": "/x"}), 0))
    await driver.create_disk(HERE, uuid(1), MIB)
    await refused(43, driver.create_disk(HERE, uuid(1), MIB))
    await refused(43, driver.clone_disk(HERE, uuid(1), uuid(1)))
    await refused(1, driver.create_disk(HERE, "../x", MIB))
    await refused(79, driver.create_disk(HERE, uuid(2), 0))
    await refused(79, driver.resize_disk(HERE, uuid(1), MIB - 512))
    for call in (driver.source, driver.update_disk):
        await refused(144, call(HERE, uuid(2)))
    await refused(144, driver.clone_disk(HERE, uuid(2), uuid(3)))
    image = raw(tmp_path / "image", 2 * MIB)
    await refused(79, driver.copy_disk(image, HERE, uuid(2), MIB, lambda _: None))
    await refused(38, driver.copy_disk(DiskSource(image.path, DiskFormat.VPC), HERE, uuid(2), MIB, lambda _: None))
    gone = DiskSource(tmp_path / "none", DiskFormat.RAW)
    await refused(144, driver.copy_disk(gone, HERE, uuid(2), MIB, lambda _: None))
    assert [disk.uuid for disk in await driver.scan(HERE)] == [uuid(1)]
    assert (await driver.resize_disk(HERE, uuid(1), 3 * MIB)).virtual_size == 3 * MIB


async def test_the_medium_can_be_full(driver: SimStorage) -> None:
    small = with_faults(physical_size=str(3 * MIB))
    await driver.create_disk(small, uuid(1), MIB)
    await refused(44, driver.create_disk(small, uuid(2), 2 * MIB + 1))
    await refused(44, driver.resize_disk(small, uuid(1), 4 * MIB))
    await driver.clone_disk(small, uuid(1), uuid(2))
    assert (await driver.size(small)).physical_size == 3 * MIB


Call = Callable[[SimStorage, Repository], Awaitable[object]]
CALLS: dict[str, Call] = {
    "create": lambda driver, here: driver.create(here, 0),
    "attach": lambda driver, here: driver.attach(here),
    "detach": lambda driver, here: driver.detach(here),
    "destroy": lambda driver, here: driver.destroy(here),
    "scan": lambda driver, here: driver.scan(here),
    "size": lambda driver, here: driver.size(here),
    "create-disk": lambda driver, here: driver.create_disk(here, uuid(2), MIB),
    "destroy-disk": lambda driver, here: driver.destroy_disk(here, uuid(1)),
    "clone-disk": lambda driver, here: driver.clone_disk(here, uuid(1), uuid(2)),
    "snapshot-disk": lambda driver, here: driver.snapshot_disk(here, uuid(1), uuid(2), None),
    "copy-disk": lambda driver, here: driver.copy_disk(
        DiskSource(Path("/dev/null"), DiskFormat.RAW), here, uuid(2), MIB, lambda _: None
    ),
    "create-image": lambda driver, here: driver.create_image(here, uuid(2)),
    "resize-disk": lambda driver, here: driver.resize_disk(here, uuid(1), 2 * MIB),
    "update-disk": lambda driver, here: driver.update_disk(here, uuid(1)),
    "source": lambda driver, here: driver.source(here, uuid(1)),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_every_verb_fails_when_asked_and_changes_nothing(tmp_path: Path, verb: str) -> None:
    clock = ManualClock()
    driver = SimStorage(clock, tmp_path)
    await driver.create(HERE, 0)
    await driver.attach(HERE)
    before = [await driver.create_disk(HERE, uuid(1), MIB)]
    for written, number, text in (("44 no room", 44, "no room"), ("tape lost", 202, "tape lost"), ("73", 73, verb)):
        asked = with_faults(**{f"fail-{verb}": written, f"delay-{verb}": "5"})
        call = asyncio.ensure_future(refused(number, CALLS[verb](driver, asked)))
        await clock.advance(4.9)
        assert not call.done()
        await clock.advance(0.2)
        assert text in await call
        assert await driver.scan(HERE) == before


def test_every_verb_is_called_and_the_docstring_names_them_all() -> None:
    assert tuple(CALLS) == VERBS
    assert sim.__doc__ is not None
    listed = re.search(r"`<verb>` is one of (.*?)\.", sim.__doc__, re.DOTALL)
    assert listed is not None
    assert tuple(re.split(r",\s+", listed[1].strip())) == VERBS
    rows = set(re.findall(r"^\| `sim:(\S+?)`", sim.__doc__, re.MULTILINE))
    assert {re.sub("(fail|delay)-.*", r"\1-<verb>", key) for key in KEYS} == rows


async def test_faults_that_mean_nothing_are_refused(driver: SimStorage) -> None:
    assert "fail-craete" in await refused(1, driver.scan(with_faults(fail_craete="x")))
    await refused(1, driver.scan(with_faults(delay_scan="soon")))
    await refused(1, driver.size(with_faults(physical_size="-1")))


def _write(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)
