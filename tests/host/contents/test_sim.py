"""Contents of simulated disks: kept as written, carried along by copies, gone with the disk; failures on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host.clock import ManualClock
from domzero.host.contents.protocol import ContentError, MediumFullError
from domzero.host.contents.sim import SimContents
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.protocol import Repository
from domzero.host.storage.sim import SimStorage
from tests.host.contents.conftest import DATA, MIB
from tests.host.storage.disks import REPOSITORY, uuid


def repository(**faults: str) -> Repository:
    return Repository(REPOSITORY, {"location": "x", **{f"sim:{key}": value for key, value in faults.items()}})


@pytest.fixture
async def storage(tmp_path: Path) -> SimStorage:
    storage = SimStorage(ManualClock(), tmp_path)
    await storage.create(repository(), 0)
    await storage.attach(repository())
    await storage.create_disk(repository(), uuid(1), 64 * MIB)
    return storage


async def test_what_is_written_stays(storage: SimStorage, tmp_path: Path) -> None:
    contents, place = SimContents(ManualClock(), storage), repository()
    source = await storage.source(place, uuid(1))
    async with contents.writing(source) as disk:
        await disk.write(5 * MIB, DATA)
        await disk.flush()
    snapshot = await storage.snapshot_disk(place, uuid(1), uuid(2), None)
    clone = await storage.clone_disk(place, uuid(1), uuid(3))
    copy = await storage.copy_disk(source, place, uuid(4), 64 * MIB, lambda _: None)
    async with contents.writing(source) as disk:
        await disk.zero(0, 64 * MIB)
    for made in (snapshot, clone, copy):
        async with contents.reading(await storage.source(place, made.location)) as reader:
            assert await reader.read(5 * MIB, len(DATA)) == DATA
    again = SimStorage(ManualClock(), tmp_path)
    await again.attach(place)
    async with SimContents(ManualClock(), again).reading(await again.source(place, uuid(3))) as reader:
        assert await reader.read(5 * MIB, len(DATA)) == DATA
    async with contents.reading(source) as reader:
        assert [stretch.data async for stretch in reader.stretches()] == [False]
    await storage.destroy_disk(place, uuid(1))
    with pytest.raises(ContentError, match="No such file"):
        async with contents.reading(source):
            pytest.fail("it was opened")


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ({"fail-open-content": "it is locked"}, ContentError, "it is locked"),
        ({"fail-read-content": "200 a bad sector"}, ContentError, "a bad sector"),
        ({"fail-write-content": "44 no room"}, MediumFullError, "no room"),
    ],
)
async def test_faults(fault: dict[str, str], error: type[ContentError], said: str, storage: SimStorage) -> None:
    contents = SimContents(ManualClock(), storage)
    source = await storage.source(repository(**fault), uuid(1))

    async def use() -> None:
        async with contents.writing(source) as disk:
            await disk.write(0, b"x")
        async with contents.reading(source) as reader:
            await reader.read(0, 1)

    with pytest.raises(error, match=said):
        await use()
    await storage.source(repository(), uuid(1))
    await use()


async def test_what_the_simulator_has_no_tool_for(storage: SimStorage) -> None:
    source = await storage.source(repository(), uuid(1))
    with pytest.raises(ContentError, match="cannot read qcow2"):
        async with SimContents(ManualClock(), storage).reading(DiskSource(source.path, DiskFormat.QCOW2)):
            pytest.fail("it was opened")
