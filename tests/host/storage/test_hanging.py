"""A medium that stops answering: a directory served by a process that is stopped (bindfs, by FUSE)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domzero.host.storage.files.directory import DirectoryStorage
from domzero.host.storage.files.file import DirectoryMedium
from domzero.host.storage.mounts import mounted_at
from domzero.host.storage.protocol import StorageError
from domzero.host.storage.worker import Workers
from tests.host.storage.disks import MIB, opened, raw, refused, repository, tool, uuid

PATIENCE = 0.5
"""Once a server is stopped; what goes on while it answers may take its time."""


class Server:
    """Serves a directory at another one, until it is stopped."""

    def __init__(self, directory: Path, point: Path) -> None:
        self.point = point
        self.process = subprocess.Popen(["bindfs", "-f", directory, point], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 30
        while mounted_at(point) is None:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)  # the kernel's list of mounts tells nobody of a change

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.go_on()
        tool("umount", "-l", self.point)
        self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    for name in ("behind", "front"):
        (tmp_path / name).mkdir()
    made = Server(tmp_path / "behind", tmp_path / "front")
    yield made
    made.close()


needs_fuse = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("bindfs"), reason="mounts a file system with bindfs"),
]


@pytest.fixture
async def driver(server: Server) -> AsyncIterator[DirectoryStorage]:
    made = DirectoryStorage(DirectoryMedium())
    await opened(made, server.point / "sr")
    yield made
    server.go_on()
    wait_for_answers(made, DirectoryMedium.patience)
    await made.detach(repository(server.point / "sr"))


def wait_for_answers(driver: DirectoryStorage, patience: float) -> None:
    """How long the driver waits from now on."""
    driver._medium.patience = patience
    for place in driver._places.values():
        place.workers.patience = patience


class TestStopped:
    """Each call ends in time, the loop and its threads are free, and all is well when the server is back."""

    pytestmark = needs_fuse

    async def test_nothing_hangs_and_all_comes_back(self, driver: DirectoryStorage, server: Server) -> None:
        here = repository(server.point / "sr")
        await driver.create_disk(here, uuid(1), MIB)
        server.stop()
        wait_for_answers(driver, PATIENCE)
        before = threading.active_count()
        started = time.monotonic()
        calls = [driver.create_disk(here, uuid(number), MIB) for number in range(2, 30)]
        outcomes = await asyncio.gather(*calls, driver.scan(here), driver.size(here), return_exceptions=True)
        assert all(isinstance(outcome, StorageError) and outcome.number in (47, 200) for outcome in outcomes)
        assert time.monotonic() - started < 40 * PATIENCE
        late = threading.active_count()
        for _ in range(20):
            await refused(47, driver.scan(here))
        assert threading.active_count() <= late <= before + len(calls) + 2
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 20) == 7
        server.go_on()
        wait_for_answers(driver, DirectoryMedium.patience)
        await _answers(driver)
        assert [disk.uuid for disk in await driver.scan(here)] == [uuid(1)]
        await driver.create_disk(here, uuid(2), MIB)
        assert {path.name for path in (server.point / "sr").iterdir()} == {
            "domzero-repository.json",
            f"{uuid(1)}.qcow2",
            f"{uuid(2)}.qcow2",
        }

    async def test_a_copy_is_given_up(self, driver: DirectoryStorage, server: Server, tmp_path: Path) -> None:
        here = repository(server.point / "sr")
        source = raw(tmp_path / "source", 64 * MIB, os.urandom(32 * MIB))
        begun = asyncio.Event()
        copy = asyncio.ensure_future(driver.copy_disk(source, here, uuid(1), 64 * MIB, lambda _: begun.set()))
        await begun.wait()
        server.stop()
        wait_for_answers(driver, PATIENCE)
        copy.cancel()
        await asyncio.wait({copy}, timeout=1)  # a tool that the kernel holds cannot be ended before that answers
        server.go_on()
        wait_for_answers(driver, DirectoryMedium.patience)
        with pytest.raises((asyncio.CancelledError, StorageError)):
            await copy
        await _answers(driver)
        assert await driver.scan(here) == []
        assert [path.name for path in (server.point / "sr").iterdir()] == ["domzero-repository.json"]

    async def test_letting_go_does_not_wait(self, driver: DirectoryStorage, server: Server) -> None:
        here = repository(server.point / "sr")
        server.stop()
        wait_for_answers(driver, PATIENCE)
        await refused(200, driver.scan(here))
        await asyncio.wait_for(driver.detach(here), 20)
        await refused(47, driver.scan(here))
        await refused(200, asyncio.wait_for(driver.attach(here), 20))
        server.go_on()


async def _answers(driver: DirectoryStorage) -> None:
    """Wait until what was late has come back."""
    (place,) = driver._places.values()
    await _settled(place.workers)


async def _settled(workers: Workers) -> None:
    async with asyncio.timeout(20):
        while not workers.answers:
            await asyncio.wait(set(workers._late))


# The same without a file system


async def test_work_that_is_late_is_not_waited_for() -> None:
    workers, go_on = Workers("the disk"), threading.Event()
    assert await workers.run(lambda: 7) == 7
    patience, workers.patience = workers.patience, 0.05
    said = await refused(200, workers.run(go_on.wait, 30))
    assert said == "the disk has not answered for 0.05 seconds"
    assert not workers.answers
    said = await refused(47, workers.run(lambda: 7))
    assert said == "the disk does not answer"
    go_on.set()
    await _settled(workers)
    workers.patience = patience
    assert await workers.run(lambda: 7) == 7


async def test_what_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await Workers("the disk").run(lambda: 1 // 0)


async def test_cancelled_work_is_awaited_to_its_end() -> None:
    workers, begun, go_on, done = Workers("the disk", 10), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        done.set()

    call = asyncio.ensure_future(workers.run(work))
    await asyncio.to_thread(begun.wait, 10)
    call.cancel()
    await asyncio.sleep(0)
    assert not call.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert done.is_set()
