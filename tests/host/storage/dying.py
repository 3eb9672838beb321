"""What the tests that kill LVM operations share: the group they work on, who kills them, and what must hold after."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domzero.host.storage.lvm.driver import LvmStorage
from tests.host.storage.disks import MIB, uuid
from tests.host.storage.killed_lvm import EXTENT
from tests.host.storage.loops import on, opened, read, write

ROOT = Path(__file__).parents[3]
CONTENT = {uuid(1): b"first", uuid(3): b"third"}


async def prepare(device: Path, *, mapped: bool) -> None:
    """Disk 1, which has no room to grow in place, disk 2 and disk 3, in space full of other data."""
    driver = LvmStorage(mapped=mapped)
    here = await opened(driver, on(device))
    for number in (1, 2, 3, 4):
        await driver.create_disk(here, uuid(number), EXTENT if number < 4 else 8 * EXTENT)
    for disk, content in CONTENT.items():
        write(await driver.source(here, disk), 0, content)
    for offset in range(0, 8 * EXTENT, MIB):
        write(await driver.source(here, uuid(4)), offset, b"somebody's secret")
    await driver.destroy_disk(here, uuid(4))
    await driver.detach(here)


class Killer:
    """The program `killed_lvm`, which does and dies."""

    def __init__(self, process: subprocess.Popen[str], *, mapped: bool) -> None:
        self._process = process
        self._mapped = mapped

    def die(self, device: Path, verb: str, step: int) -> int:
        """`DIED` after that change, or 0 when the operation was over before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{device}\t{verb}\t{step}\t{int(self._mapped)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def running_killer(*, mapped: bool) -> Iterator[Killer]:
    argv = [sys.executable, "-m", "tests.host.storage.killed_lvm"]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Killer(process, mapped=mapped)
        assert process.stdin is not None
        process.stdin.close()


async def check(device: Path, verb: str, *, mapped: bool) -> dict[str, int]:
    """Nothing is lost, nothing leaks, nothing shows; answers the disks that are there, with their sizes."""
    driver = LvmStorage(mapped=mapped)
    here = on(device)
    await driver.attach(here)
    disks = {disk.uuid: disk.virtual_size for disk in await driver.scan(here)}
    assert (await driver.size(here)).physical_utilisation == sum(disks.values())
    assert {uuid(1), uuid(2), uuid(3)} <= disks.keys() | ({uuid(1)} if verb == "destroy" else set())
    contents = {**CONTENT, uuid(9): b"\7" * 65536 if verb == "copy" else b""}
    for disk, size in disks.items():
        content = contents.get(disk, b"")
        assert read(await driver.source(here, disk), 0, size) == content.ljust(size, b"\0")
    await driver.detach(here)
    return disks
