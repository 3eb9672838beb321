"""Disks in a real Ceph cluster, made for the test."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.files.formats import KEY
from domzero.host.storage.images import overwrite_disk
from domzero.host.storage.protocol import Repository, StorageDriver
from domzero.host.storage.rbd import tool as rbd_tool
from domzero.host.storage.rbd.driver import RbdStorage
from tests.host.storage.ceph_cluster import POOL, Cluster, needs_ceph, running_cluster
from tests.host.storage.disks import MIB, REPOSITORY, raw, refused, uuid
from tests.host.storage.rbd_killed import DIED

ROOT = Path(__file__).parents[3]

pytestmark = [needs_ceph, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("ceph")) as cluster:
        yield cluster


@pytest.fixture
async def driver(cluster: Cluster) -> AsyncIterator[RbdStorage]:
    driver: StorageDriver = RbdStorage(abandoned=0)
    here = there(cluster)
    await driver.create(here, 0)
    await driver.attach(here)
    assert isinstance(driver, RbdStorage)
    yield driver
    await driver.destroy(here)
    assert cluster.tool("rbd", "ls", POOL) == ""


def there(cluster: Cluster, **further: str) -> Repository:
    return Repository(REPOSITORY, {**cluster.device_config, **further})


def noted(_: float) -> None:
    """Progress that nobody looks at."""


async def test_the_life_of_a_disk(cluster: Cluster, driver: RbdStorage, tmp_path: Path) -> None:
    here = there(cluster)
    made = await driver.create_disk(here, uuid(1), MIB + 1)
    assert (made.virtual_size, made.sm_config[KEY]) == (2 * MIB, "raw")
    assert await driver.scan(here) == [made]
    await refused(43, driver.create_disk(here, uuid(1), MIB))
    await refused(66, driver.create_disk(here, uuid(2), MIB, {KEY: "vhd"}))
    grown = await driver.resize_disk(here, uuid(1), 4 * MIB)
    assert grown.virtual_size == 4 * MIB
    await refused(79, driver.resize_disk(here, uuid(1), MIB))
    content = os.urandom(3 * MIB)
    copied = await driver.copy_disk(raw(tmp_path / "disk", 8 * MIB, content), here, uuid(2), 8 * MIB, noted)
    assert copied.virtual_size == 8 * MIB
    assert copied.physical_utilisation < 8 * MIB
    again = await driver.copy_disk(await driver.source(here, uuid(2)), here, uuid(3), 8 * MIB, noted)
    assert again.physical_utilisation == copied.physical_utilisation
    back = tmp_path / "back"
    raw(back, 8 * MIB)
    await overwrite_disk(await driver.source(here, uuid(3)), back, noted)
    assert back.read_bytes() == content + bytes(5 * MIB)
    size = await driver.size(here)
    assert size.virtual_allocation == 20 * MIB
    assert size.physical_utilisation <= size.physical_size
    for number in (1, 1, 2, 3):
        await driver.destroy_disk(here, uuid(number))
    assert await driver.scan(here) == []
    await refused(144, driver.source(here, uuid(1)))


async def test_images_of_others_are_left_alone(cluster: Cluster, driver: RbdStorage) -> None:
    here = there(cluster)
    cluster.tool("rbd", "create", f"{POOL}/photos", "--size", "0")
    cluster.tool("rbd", "create", f"{POOL}/domzero.{uuid(9)}.{uuid(8)}.new", "--size", "1M")
    try:
        await driver.create_disk(here, uuid(1), MIB)
        assert [disk.uuid for disk in await driver.scan(here)] == [uuid(1)]
        assert [found.uuid for found in await driver.probe(cluster.device_config, {})] == [REPOSITORY]
        await refused(42, driver.create(here, 0))
    finally:
        left = cluster.tool("rbd", "ls", POOL).split()
        cluster.tool("rbd", "rm", f"{POOL}/photos")
        cluster.tool("rbd", "rm", f"{POOL}/domzero.{uuid(9)}.{uuid(8)}.new")
    assert len(left) == 4


async def test_a_disk_that_is_open_grows_and_cannot_be_removed(
    cluster: Cluster, driver: RbdStorage, tmp_path: Path
) -> None:
    here = there(cluster)
    await driver.create_disk(here, uuid(1), MIB)
    seen: list[int] = []

    async def live(size: int) -> None:
        seen.append(size)

    with opened(cluster, f"domzero.{REPOSITORY}.{uuid(1)}", tmp_path):
        await refused(24, driver.destroy_disk(here, uuid(1)))
        assert (await driver.resize_disk(here, uuid(1), 2 * MIB, live)).virtual_size == 2 * MIB
    assert seen == [2 * MIB]


@contextmanager
def opened(cluster: Cluster, image: str, directory: Path) -> Iterator[None]:
    """As QEMU has a disk open while a machine runs."""
    (directory / "key").write_text(cluster.key)
    server = f"server.0.host=127.0.0.1,server.0.port={cluster.port}"
    argv = [
        "qemu-storage-daemon",
        *("--object", f"secret,id=key,format=base64,file={directory}/key"),
        *("--blockdev", f"driver=rbd,node-name=disk,pool={POOL},image={image},key-secret=key,user=admin,{server}"),
        *("--nbd-server", f"addr.type=unix,addr.path={directory}/nbd"),
        *("--export", "nbd,id=export,node-name=disk,writable=on"),
        *("--chardev", "stdio,id=words", "--monitor", "words"),
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert b"QMP" in process.stdout.readline()
            address = f"nbd+unix:///disk?socket={directory}/nbd"
            subprocess.run(["qemu-io", "-f", "raw", "-c", "write -q 0 64k", address], check=True, timeout=30)
            yield
        finally:
            process.terminate()


async def test_an_unfinished_copy_is_no_disk_and_goes(cluster: Cluster, driver: RbdStorage, tmp_path: Path) -> None:
    here = there(cluster)
    name = f"domzero.{REPOSITORY}.{uuid(1)}.new"
    cluster.tool("rbd", "create", f"{POOL}/{name}", "--size", "1M")
    patient = RbdStorage(abandoned=1000)
    await patient.attach(here)
    assert await patient.scan(here) == []
    assert name in cluster.tool("rbd", "ls", POOL)
    with opened(cluster, name, tmp_path):
        assert await driver.scan(here) == []
        assert name in cluster.tool("rbd", "ls", POOL)


@pytest.mark.parametrize(
    ("verb", "step", "whole"),
    [
        ("create", "disk made", True),
        ("copy", "copy begun", False),
        ("copy", "copying", False),
        ("copy", "copy filled", False),
        ("copy", "copy published", True),
        ("resize", "disk grown", True),
        ("destroy", "disk removed", False),
    ],
)
async def test_a_process_that_dies_loses_and_leaks_nothing(
    cluster: Cluster, driver: RbdStorage, tmp_path: Path, verb: str, step: str, whole: bool
) -> None:
    here = there(cluster)
    if verb in ("resize", "destroy"):
        await driver.create_disk(here, uuid(1), MIB)
    content = os.urandom(16 * MIB)
    raw(tmp_path / "disk", 16 * MIB, content)
    argv = [sys.executable, "-m", "tests.host.storage.rbd_killed", verb, step, str(tmp_path / "disk")]
    config = json.dumps(cluster.device_config)
    died = await asyncio.to_thread(subprocess.run, argv, input=config, text=True, cwd=ROOT, timeout=60, check=False)
    assert died.returncode == DIED
    async with asyncio.timeout(40):  # until the cluster forgets what died
        while any(name.endswith(".new") for name in cluster.tool("rbd", "ls", POOL).split()):
            await asyncio.sleep(0.5)
            await driver.scan(here)
    assert [disk.uuid for disk in await driver.scan(here)] == ([uuid(1)] if whole else [])
    if verb == "copy" and whole:
        raw(tmp_path / "back", 16 * MIB)
        await overwrite_disk(await driver.source(here, uuid(1)), tmp_path / "back", noted)
        assert (tmp_path / "back").read_bytes() == content
    if not whole:
        await driver.create_disk(here, uuid(1), MIB)


async def test_a_copy_that_is_cancelled_leaves_nothing(cluster: Cluster, driver: RbdStorage, tmp_path: Path) -> None:
    here, begun = there(cluster), asyncio.Event()
    source = raw(tmp_path / "disk", 64 * MIB, os.urandom(64 * MIB))
    copying = asyncio.ensure_future(
        driver.copy_disk(source, here, uuid(1), 64 * MIB, lambda done: begun.set() if done else None)
    )
    await begun.wait()
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert await driver.scan(here) == []
    async with asyncio.timeout(30):  # the cluster forgets a killed qemu-img only after a while
        while cluster.tool("rbd", "ls", POOL).split() != [f"domzero.{REPOSITORY}"]:
            await asyncio.sleep(0.5)
            await driver.scan(here)
    await refused(144, driver.copy_disk(DiskSource(tmp_path / "x", DiskFormat.RAW), here, uuid(1), MIB, noted))


async def test_who_is_not_let_in(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbd_tool, "CONNECT_SECONDS", 2)
    driver = RbdStorage(patience=30)
    wrong = "AQAj6gFrC6/3OBAA6+HTwLVGqaHt8LVVANLLTw=="
    await refused(20, driver.attach(there(cluster, key=wrong)))
    await refused(47, driver.attach(there(cluster, pool="none")))
    await refused(47, driver.attach(there(cluster)))
