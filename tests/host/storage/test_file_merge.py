"""A machine whose disk is snapshotted again and again, as backup programs do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskSource
from domzero.host.storage.files import layers
from tests.host.storage.disks import MIB, Shelf, holds, refused, uuid, write

BLOCK = 65536


@contextmanager
def opened_by_machine(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a disk open, with every layer below it."""
    argv: list[str | Path] = ["qemu-io", "-r", "-f", "qcow2", path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("length\n")
        process.stdin.flush()
        assert process.stdout.readline()
        yield process
        process.stdin.close()


def still_holds(machine: subprocess.Popen[str], mark: int, offset: int) -> bool:
    assert machine.stdin is not None
    assert machine.stdout is not None
    machine.stdin.write(f"read -P {mark} {offset} 64k\n")
    machine.stdin.flush()
    first = machine.stdout.readline()
    if "failed" in first:
        return False
    machine.stdout.readline()
    return "65536/65536" in first


@pytest.mark.slow
async def test_snapshots_can_come_and_go_without_end(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MERGE_FROM", 6)
    monkeypatch.setattr(layers, "CHAIN_LIMIT", 8)
    await shelf.driver.create_disk(shelf.repository, uuid(1), 2 * MIB)
    expected = dict.fromkeys(range(16), 0)

    async def switch(source: DiskSource) -> None:
        write(source, turn, turn % 16 * BLOCK)

    for turn in range(1, 6):
        await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(100 + turn), switch)
        expected[turn] = turn
        await shelf.driver.destroy_disk(shelf.repository, uuid(100 + turn))
    await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(2), None)
    kept = dict(expected)
    with opened_by_machine((await shelf.source(2)).path) as machine:
        for turn in range(6, 26):
            await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(100 + turn), switch)
            expected[turn % 16] = turn
            await shelf.driver.destroy_disk(shelf.repository, uuid(100 + turn))
        for block, mark in kept.items():
            assert still_holds(machine, mark, block * BLOCK)
            assert holds(await shelf.source(2), mark, block * BLOCK)
    for block, mark in expected.items():
        assert holds(await shelf.source(1), mark, block * BLOCK)
    await shelf.numbers()
    assert shelf.bases() <= 8
    for number in (1, 2):
        await shelf.driver.destroy_disk(shelf.repository, uuid(number))
    assert shelf.files() == []


@pytest.mark.slow
async def test_layers_of_different_sizes_are_merged_right(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MERGE_FROM", 3)
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    for number in range(1, 7):
        write(await shelf.source(1), number, number * MIB - BLOCK)
        await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(100 + number), None)
        await shelf.driver.destroy_disk(shelf.repository, uuid(100 + number))
        await shelf.driver.resize_disk(shelf.repository, uuid(1), (number + 1) * MIB)
    for number in range(1, 7):
        assert holds(await shelf.source(1), number, number * MIB - BLOCK)
        assert holds(await shelf.source(1), 0, number * MIB)
    assert shelf.bases() <= 3


async def test_layers_that_snapshots_need_are_not_merged(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MERGE_FROM", 3)
    monkeypatch.setattr(layers, "CHAIN_LIMIT", 5)
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    for number in range(2, 6):
        write(await shelf.source(1), number)
        await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(number), None)
    write(await shelf.source(1), 9)
    await refused(109, shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(6), None))
    await shelf.driver.destroy_disk(shelf.repository, uuid(4))
    await shelf.driver.snapshot_disk(shelf.repository, uuid(1), uuid(6), None)
    for number, mark in ((1, 9), (2, 2), (3, 3), (5, 5), (6, 9)):
        assert holds(await shelf.source(number), mark)
