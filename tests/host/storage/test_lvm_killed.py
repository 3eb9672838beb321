"""A process or a tool that dies at any change loses no disk, leaks no volume and shows nobody's data."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.storage.lvm import tool as lvm_tool
from domzero.host.storage.lvm.driver import LvmStorage
from domzero.host.storage.lvm.names import (
    NEW,
    Remove,
    Rename,
    Repair,
    Shrink,
    disk_name,
    leftovers,
    moving_name,
    old_name,
    valid_tag,
)
from domzero.host.storage.lvm.report import Volume
from domzero.host.storage.protocol import StorageError
from tests.host.storage.disks import MIB, uuid
from tests.host.storage.dying import Killer, check, prepare, running_killer
from tests.host.storage.killed import DIED
from tests.host.storage.killed_lvm import EXTENT, work
from tests.host.storage.loops import loop_device, needs_lvm, on

STEPS = {"create": 3, "copy": 3, "grow": 4, "move": 6, "destroy": 1}
"""How many changes each operation makes on what `prepare` made."""
COMMANDS = {"create": 3, "copy": 3, "grow": 6, "move": 9, "destroy": 1}
"""How many times each operation calls LVM."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device with disk 1, which has no room to grow in place, disk 2 and disk 3, in space full of other data."""
    image = tmp_path_factory.mktemp("template") / "device"
    with loop_device(image, 64 * MIB) as device:
        asyncio.run(prepare(device, mapped=False))
    return image


@pytest.fixture
def device(template: Path, tmp_path: Path) -> Iterator[Path]:
    image = tmp_path / "device"
    subprocess.run(["cp", "--sparse=always", template, image], check=True)
    with loop_device(image, 64 * MIB) as found:
        yield found


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with running_killer(mapped=False) as killer:
        yield killer


@pytest.mark.slow
@pytest.mark.root
@needs_lvm
@pytest.mark.parametrize(
    ("verb", "step"), [(verb, step) for verb, count in STEPS.items() for step in range(1, count + 1)]
)
async def test_dying_loses_and_leaks_nothing(killer: Killer, device: Path, verb: str, step: int) -> None:
    assert killer.die(device, verb, step) == DIED
    disks = await check(device, verb, mapped=False)
    finished = step == STEPS[verb]
    assert (uuid(9) in disks) == (finished and verb in ("create", "copy"))
    assert (uuid(1) in disks) == (verb != "destroy")
    assert (disks[uuid(3)] == 2 * EXTENT) == (finished and verb == "grow")
    assert (disks.get(uuid(1)) == 2 * EXTENT) == (step >= 4 and verb == "move")


@pytest.mark.slow
@pytest.mark.root
@needs_lvm
@pytest.mark.parametrize("verb", STEPS)
async def test_the_steps_are_counted_right(killer: Killer, device: Path, verb: str) -> None:
    assert killer.die(device, verb, STEPS[verb] + 1) == 0


@pytest.mark.slow
@pytest.mark.root
@needs_lvm
async def test_dying_while_tidying_up_is_no_harm_either(killer: Killer, device: Path) -> None:
    assert killer.die(device, "move", 4) == DIED
    deaths = 0
    while killer.die(device, "attach", 1) == DIED:
        deaths += 1
    assert deaths == 2
    assert (await check(device, "move", mapped=False))[uuid(1)] == 2 * EXTENT


@pytest.mark.slow
@pytest.mark.root
@needs_lvm
async def test_dying_while_a_repository_is_made_or_erased(killer: Killer, tmp_path: Path) -> None:
    with loop_device(tmp_path / "empty", 64 * MIB) as device:
        assert killer.die(device, "found", 1) == DIED
        assert killer.die(device, "erase", 1) == DIED
        assert killer.die(device, "found", 9) == 0
        assert killer.die(device, "erase", 1) == DIED
        assert killer.die(device, "erase", 9) == 0


@pytest.mark.slow
@pytest.mark.root
@needs_lvm
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("verb", COMMANDS)
async def test_a_tool_that_is_killed_leaves_nothing(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, moment: str
) -> None:
    """LVM dies before it does anything, or when it has done it and not yet said so, at each call in turn."""
    deadly = DeadlyTool(tmp_path, moment)
    monkeypatch.setattr(lvm_tool, "LVM", str(deadly.path))
    failures = 0
    for number in range(1, COMMANDS[verb] + 1):
        driver = LvmStorage(mapped=False)
        await driver.attach(on(device))
        deadly.arm(number)
        try:
            await work(driver, device, verb)
        except StorageError:
            failures += 1
        assert deadly.struck()
        deadly.arm(0)
        await driver.detach(on(device))
        disks = await check(device, verb, mapped=False)
        if 2 * EXTENT in disks.values() or uuid(1) not in disks:
            break  # the change was made though nobody was told, as it must be when it is the last
        assert uuid(9) not in disks
    assert failures


class DeadlyTool:
    """LVM's tool, which can be told to be killed at a call of it."""

    def __init__(self, directory: Path, moment: str) -> None:
        self.path = directory / "lvm"
        self._armed = directory / "armed"
        real = shutil.which("lvm", path="/usr/sbin:/sbin")
        end = {"before": "kill -9 $$", "after": f'{real} "$@"; kill -9 $$'}[moment]
        self._armed.write_text("0")
        self.path.write_text(
            f"#!/bin/sh\nleft=$(cat {self._armed}); echo $((left - 1)) > {self._armed}\n"
            f'[ "$left" = 1 ] && {{ {end}; }}\nexec {real} "$@"\n'
        )
        self.path.chmod(0o700)

    def arm(self, number: int) -> None:
        """Strike at that call from now on."""
        self._armed.write_text(str(number))

    def struck(self) -> bool:
        """Whether there were so many calls."""
        return int(self._armed.read_text()) <= 0


# The decisions, without a medium

DISK, MOVE, OLD = disk_name(uuid(1)), moving_name(uuid(1)), old_name(uuid(1))


def volume(name: str, *tags: str, size: int = 8) -> Volume:
    return Volume(name, size, frozenset(tags), ())


@pytest.mark.parametrize(
    ("volumes", "busy", "expected"),
    [
        ([volume(DISK), volume("foreign", NEW), volume("LV-x", NEW)], (), []),
        ([volume(DISK, NEW)], (), [Remove(DISK)]),
        ([volume(DISK, NEW)], (uuid(1),), []),
        ([volume(DISK, NEW, "domzero_on_here")], (), [Remove(DISK)]),
        ([volume(DISK, NEW, "domzero_on_there")], (), []),
        ([volume(DISK, "domzero_on_here")], (), []),
        ([volume(DISK, valid_tag(4))], (), [Shrink(DISK, 4, (valid_tag(4),))]),
        ([volume(DISK, valid_tag(16))], (), [Shrink(DISK, 8, (valid_tag(16),))]),
        ([volume(DISK, "domzero_valid_0")], (), []),
        ([volume(DISK), volume(MOVE)], (), [Remove(MOVE)]),
        ([volume(OLD), volume(MOVE)], (), [Rename(MOVE, DISK), Remove(OLD)]),
        ([volume(OLD), volume(MOVE)], (uuid(1),), []),
        ([volume(DISK), volume(OLD)], (), [Remove(OLD)]),
        ([volume(OLD)], (), [Rename(OLD, DISK)]),
        ([volume(MOVE)], (), []),
    ],
)
def test_what_is_left_over(volumes: list[Volume], busy: tuple[str, ...], expected: list[Repair]) -> None:
    assert leftovers(volumes, busy, "here") == expected
