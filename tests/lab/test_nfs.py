"""The NFS driver with the kernel's client and server, which share this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from domzero.host.storage.files.directory import DirectoryStorage
from domzero.host.storage.files.nfs import NfsMedium, NfsStorage
from domzero.host.storage.mounts import mounted_at
from domzero.host.storage.protocol import Repository, StorageError
from tests.host.storage.disks import MIB, REPOSITORY, holds, raw, refused, uuid, write

SERVER = "127.0.0.1"
PATIENCE = 3.0


class ImpatientMedium(NfsMedium):
    patience = PATIENCE


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that the server exports, on a file system of its own so that it can be exported."""
    directory = tmp_path_factory.mktemp("nfs") / "vm"
    directory.mkdir()
    run("systemctl", "start", "nfs-server")
    run("exportfs", "-o", "rw,no_root_squash,no_subtree_check,insecure,fsid=77", f"{SERVER}:{directory}")
    yield directory
    run("exportfs", "-u", f"{SERVER}:{directory}")


@pytest.fixture
def cut() -> Iterator[list[str]]:
    """Rules that make the server unreachable; what a test leaves of them goes."""
    table = ["nft", "add", "table", "inet", "lab"]
    run(*table)
    run("nft", "add", "chain", "inet", "lab", "in", "{ type filter hook input priority 0 ; }")
    yield ["nft", "add", "rule", "inet", "lab", "in", "tcp", "dport", "2049", "drop"]
    run("nft", "delete", "table", "inet", "lab")


def on(export: Path, **more: str) -> Repository:
    return Repository(REPOSITORY, {"server": SERVER, "serverpath": str(export), **more})


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[NfsStorage]:
    made = NfsStorage(tmp_path / "mounts")
    yield made
    for repository in list(made._places):
        await made.detach(Repository(repository, {}))


@pytest.mark.parametrize("version", ["3", "4.1", "4.2", ""])
async def test_a_repository_is_made_used_found_again_and_erased(
    driver: NfsStorage, export: Path, tmp_path: Path, version: str
) -> None:
    here = on(export, **({"nfsversion": version} if version else {}))
    await driver.create(here, 0)
    assert (export / REPOSITORY).is_dir()
    await driver.attach(here)
    await driver.attach(here)
    await driver.create_disk(here, uuid(1), 8 * MIB)
    write(await driver.source(here, uuid(1)), 1)
    await driver.clone_disk(here, uuid(1), uuid(2))
    content = raw(tmp_path / "content", 8 * MIB, b"\7" * MIB)
    await driver.copy_disk(content, here, uuid(3), 8 * MIB, lambda _: None)
    assert holds(await driver.source(here, uuid(2)), 1)
    assert holds(await driver.source(here, uuid(3)), 7)
    size = await driver.size(here)
    assert size.physical_size > size.physical_utilisation > 0
    (found,) = await driver.probe(here.device_config, {})
    assert found.uuid == REPOSITORY
    await driver.detach(here)
    assert os.listdir(tmp_path / "mounts") == []
    await driver.attach(here)
    for merge in await driver.merges(here):
        await driver.merge(here, merge, lambda _: None, None)
    assert {disk.uuid for disk in await driver.scan(here)} == {uuid(1), uuid(2), uuid(3)}
    await driver.destroy(here)
    assert os.listdir(export) == []
    assert await driver.probe(here.device_config, {}) == []


async def test_two_hosts_share_it_and_one_changes_it(driver: NfsStorage, export: Path, tmp_path: Path) -> None:
    here = on(export)
    await driver.create(here, 0)
    await driver.attach(here)
    await driver.create_disk(here, uuid(1), MIB)
    other = NfsStorage(tmp_path / "other")
    await other.attach(here)
    assert [disk.uuid for disk in await other.scan(here)] == [uuid(1)]
    assert (await other.source(here, uuid(1))).path.exists()
    (export / REPOSITORY / f"new-{uuid(5)}.qcow2").touch()
    await other.scan(here)
    assert (export / REPOSITORY / f"new-{uuid(5)}.qcow2").exists()
    for call in (other.create_disk(here, uuid(2), MIB), other.destroy_disk(here, uuid(1)), other.destroy(here)):
        await refused(16, call)
    await driver.detach(here)
    await other.create_disk(here, uuid(2), MIB)
    await other.destroy(here)
    assert os.listdir(export) == []


async def test_what_is_missing_is_named(driver: NfsStorage, export: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await driver.probe({"server": SERVER}, {})
    assert caught.value.number == 101
    menu = ET.fromstring(caught.value.menu)
    assert str(export) in [path.text for path in menu.iter("Path")]
    for version in ("3", "4.2"):
        wrong = on(Path("/no/such/export"), nfsversion=version)
        await refused(103, driver.create(wrong, 0))
        await refused(103, driver.probe(wrong.device_config, {}))
    await refused(47, driver.attach(on(export)))


async def test_a_dead_server_hangs_nothing(export: Path, tmp_path: Path, cut: list[str]) -> None:
    driver, here = DirectoryStorage(ImpatientMedium(tmp_path / "mounts")), on(export)
    await driver.create(here, 0)
    await driver.attach(here)
    await driver.create_disk(here, uuid(1), MIB)
    run(*cut)
    started = time.monotonic()
    calls = [driver.create_disk(here, uuid(number), MIB) for number in range(2, 12)]
    outcomes = await asyncio.gather(*calls, driver.scan(here), driver.size(here), return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, StorageError)]
    assert {error.number for error in failed} <= {47, 200}
    assert len(failed) >= len(calls)
    assert await asyncio.to_thread(lambda: 7) == 7
    await driver.detach(here)
    assert mounted_at(tmp_path / "mounts" / REPOSITORY) is None
    assert time.monotonic() - started < 60
    await refused(73, driver.attach(here))
    run("nft", "flush", "chain", "inet", "lab", "in")
    await driver.attach(here)
    assert uuid(1) in {disk.uuid for disk in await driver.scan(here)}
    async with asyncio.timeout(300):
        while True:  # until the server knows that the marker of before is closed
            try:
                await driver.destroy(here)
                break
            except StorageError as error:
                if error.number != 16:
                    raise
                await asyncio.sleep(2)
    assert os.listdir(export) == []
