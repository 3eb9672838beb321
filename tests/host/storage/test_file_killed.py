"""A process that dies at any change on the medium loses no disk and leaves no file that stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.files import layers
from domzero.host.storage.files.file import FileStorage
from domzero.host.storage.files.layers import Layer, Leftovers, Survey, best_merge, leftovers
from domzero.host.storage.files.marker import MARKER
from domzero.host.storage.files.qcow2 import Header
from tests.host.storage.disks import MIB, holds, opened, repository, uuid, write
from tests.host.storage.killed import DIED
from tests.sampling import each

ROOT = Path(__file__).parents[3]
STEPS = {
    "clone": 6,
    "snapshot": 6,
    "destroy": 3,
    "create": 2,
    "copy": 2,
    "merge": 9,
    "push": 2,
    "pull": 4,
    "live pull": 4,
    "resize": 1,
    "grow vhd": 3,
    "clone vhd": 3,
}
"""How many changes each operation makes on what `prepare` made."""
FAST = {"snapshot", "pull"}
"""Those whose deaths are in the fast part of the tests."""
MAKES = {"clone", "snapshot", "create", "copy", "merge", "clone vhd"}
"""Those after which there is a disk 9."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("template") / "sr"
    asyncio.run(prepare(directory))
    return directory


@pytest.fixture
def directory(template: Path, tmp_path: Path) -> Path:
    """A repository of its own for each test, as `prepare` made it."""
    return shutil.copytree(template, tmp_path / "sr")


async def prepare(directory: Path) -> None:
    """Disk 1 (marked 5) has a snapshot 2 (marked 1) and two layers of its own between; disk 3 (marked 3) is alone.

    Disk 6 (marked 6) is a VHD file.
    """
    driver = FileStorage()
    here = await opened(driver, directory)
    for number in (1, 3):
        await driver.create_disk(here, uuid(number), 4 * MIB)
        write(await driver.source(here, uuid(number)), number)
    await driver.snapshot_disk(here, uuid(1), uuid(2), None)
    for number in (4, 5):
        write(await driver.source(here, uuid(1)), number)
        await driver.snapshot_disk(here, uuid(1), uuid(number), None)
    write(await driver.source(here, uuid(1)), 5)
    for number in (4, 5):
        await driver.destroy_disk(here, uuid(number))
    await driver.create_disk(here, uuid(6), 4 * MIB, {"image-format": "vhd"})
    write(await driver.source(here, uuid(6)), 6)
    await driver.detach(here)


class Killer:
    """The program `killed`, which does and dies."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def die(self, directory: Path, verb: str, step: int) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{directory}\t{verb}\t{step}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    argv = [sys.executable, "-m", "tests.host.storage.killed"]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Killer(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize(
    ("verb", "step"), each(8, [(verb, step) for verb, count in STEPS.items() for step in range(1, count + 1)])
)
async def test_dying_loses_and_leaks_nothing(killer: Killer, directory: Path, verb: str, step: int) -> None:
    assert killer.die(directory, verb, step) == DIED
    driver = FileStorage()
    here = repository(directory)
    await driver.attach(here)
    disks = {disk.uuid for disk in await driver.scan(here)}
    assert disks - {uuid(9)} == {uuid(number) for number in ((2, 3, 6) if verb == "destroy" else (1, 2, 3, 6))}
    assert (uuid(9) in disks) == (verb in MAKES and step == STEPS[verb])
    assert holds(await driver.source(here, uuid(6)), 6)
    assert holds(await driver.source(here, uuid(2)), 1)
    assert holds(await driver.source(here, uuid(3)), 3)
    if uuid(1) in disks:
        source = await driver.source(here, uuid(1))
        assert holds(source, 5)
        assert holds(source, 50 if verb == "snapshot" and step >= 4 else 0, MIB)
        write(source, 6, 2 * MIB)
    assert verb != "clone vhd" or uuid(9) not in disks or holds(await driver.source(here, uuid(9)), 6)
    if uuid(9) in disks and verb in ("clone", "merge", "snapshot"):
        copy = await driver.source(here, uuid(9))
        assert holds(copy, 5)
        assert holds(copy, 0, MIB)
    await driver.detach(here)
    needed = {MARKER}
    for disk in disks:
        alone = f"{disk}.vhd"
        is_alone = (directory / alone).exists()
        needed |= {alone} if is_alone else {each.name for each in layers.read_chain(directory, layers.disk_name(disk))}
    assert set(os.listdir(directory)) == needed


@pytest.mark.slow
@pytest.mark.parametrize("verb", sorted(STEPS))
async def test_the_steps_are_counted_right(killer: Killer, directory: Path, verb: str) -> None:
    assert killer.die(directory, verb, STEPS[verb] + 1) == 0


@pytest.mark.slow
async def test_dying_while_tidying_up_is_no_harm_either(killer: Killer, directory: Path) -> None:
    assert killer.die(directory, "snapshot", 4) == DIED
    deaths = 0
    while killer.die(directory, "attach", 1) == DIED:
        deaths += 1
    assert deaths == 2
    driver = FileStorage()
    here = repository(directory)
    await driver.attach(here)
    assert {disk.uuid for disk in await driver.scan(here)} == {uuid(number) for number in (1, 2, 3, 6)}
    assert holds(await driver.source(here, uuid(1)), 50, MIB)
    await driver.detach(here)


async def test_a_machine_that_outlives_the_daemon_keeps_its_writes(killer: Killer, directory: Path) -> None:
    """It goes on writing to the file it has open, which by then is the base of the layer put in place."""
    still_open = directory / "still-open.qcow2"
    still_open.hardlink_to(directory / layers.disk_name(uuid(1)))
    assert killer.die(directory, "snapshot", 3) == DIED
    driver = FileStorage()
    here = repository(directory)
    await driver.attach(here)
    write(DiskSource(still_open, DiskFormat.QCOW2), 60, MIB)
    assert holds(await driver.source(here, uuid(1)), 60, MIB)
    assert holds(await driver.source(here, uuid(1)), 5)
    await driver.clone_disk(here, uuid(1), uuid(8))
    assert holds(await driver.source(here, uuid(8)), 60, MIB)
    await driver.detach(here)


# The decisions, without a medium


def survey(*rows: tuple[str, int, str | None], new: tuple[str, ...] = (), unreadable: bool = False) -> Survey:
    found = {name: Layer(name, inode, 0, Header(MIB, backing, "qcow2", 0, 0)) for name, inode, backing in rows}
    return Survey(found, new, {"x": "broken"} if unreadable else {})


DISK, BASE, BELOW = layers.disk_name(uuid(1)), layers.base_name(uuid(2)), layers.base_name(uuid(3))
ROOT_BASE, OTHER = layers.base_name(uuid(5)), layers.disk_name(uuid(6))
NEXT, NEW = layers.next_name(uuid(1)), layers.new_name(uuid(4))


@pytest.mark.parametrize(
    ("found", "busy", "expected"),
    [
        (survey((DISK, 1, None)), set(), Leftovers((), ())),
        (survey((DISK, 1, BASE), (BASE, 2, BELOW), (BELOW, 3, None)), set(), Leftovers((), ())),
        (survey((BASE, 2, BELOW), (BELOW, 3, None)), set(), Leftovers((), (BASE, BELOW))),
        (survey((BASE, 2, BELOW), (BELOW, 3, None)), {BASE}, Leftovers((), ())),
        (survey((BASE, 2, None), unreadable=True), set(), Leftovers((), ())),
        (survey((DISK, 1, None), (NEXT, 4, BASE)), set(), Leftovers((), (NEXT,))),
        (survey((DISK, 1, None), (NEXT, 4, BASE)), {NEXT}, Leftovers((), ())),
        (survey((DISK, 1, None), (BASE, 1, None), (NEXT, 4, BASE)), set(), Leftovers(((NEXT, DISK),), ())),
        (survey((DISK, 1, None), (BASE, 1, None), (NEXT, 4, BASE)), {NEXT, BASE}, Leftovers((), ())),
        (survey((DISK, 9, None), (BASE, 1, None), (NEXT, 4, BASE)), set(), Leftovers((), (NEXT, BASE))),
        (survey((DISK, 1, None), (BASE, 1, None)), set(), Leftovers((), (BASE,))),
        (survey((DISK, 1, None), new=(NEW,)), set(), Leftovers((), (NEW,))),
        (survey((DISK, 1, None), new=(NEW,)), {NEW}, Leftovers((), ())),
    ],
)
def test_what_is_left_over(found: Survey, busy: set[str], expected: Leftovers) -> None:
    assert leftovers(found, busy) == expected


@pytest.mark.parametrize(
    ("rows", "busy", "expected"),
    [
        ([(DISK, BASE), (BASE, BELOW), (BELOW, ROOT_BASE), (ROOT_BASE, None)], set(), (BASE, BELOW)),
        ([(DISK, BASE), (BASE, BELOW), (BELOW, None)], set(), None),
        ([(DISK, BASE), (BASE, BELOW), (BELOW, ROOT_BASE), (ROOT_BASE, None), (OTHER, BELOW)], set(), None),
        ([(DISK, BASE), (BASE, BELOW), (BELOW, ROOT_BASE), (ROOT_BASE, None), (OTHER, BASE)], set(), (BASE, BELOW)),
        ([(DISK, BASE), (BASE, BELOW), (BELOW, ROOT_BASE), (ROOT_BASE, None)], {BELOW}, None),
        ([(DISK, None)], set(), None),
    ],
)
def test_which_layers_become_one(
    rows: list[tuple[str, str | None]], busy: set[str], expected: tuple[str, str] | None
) -> None:
    found = survey(*[(name, number, backing) for number, (name, backing) in enumerate(rows)])
    chain = [found.layers[name] for name, _ in rows if name != OTHER]
    merge = best_merge(chain, found, busy)
    assert (merge and (merge[0].name, merge[1].name)) == expected
