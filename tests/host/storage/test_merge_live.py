"""Layers merged below a disk that QEMU's own block layer has open and writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import LayerPull
from domzero.host.storage.protocol import LiveMerge, Progress
from tests.host.storage.disks import MIB, Shelf, holds, refused, tool, uuid, write
from tests.host.storage.test_file_live import StorageDaemon

BLOCK = 65536


class Puller(StorageDaemon):
    """Pulls layers as a hypervisor does, by a block job."""

    def find(self, path: Path) -> str:
        self.stream.write(json.dumps({"execute": "query-named-block-nodes"}) + "\n")
        self.stream.flush()
        while "return" not in (answer := json.loads(self.stream.readline())):
            pass
        nodes = [node for node in answer["return"] if node["drv"] == "qcow2" and path.name in node["file"]]
        return str(min(nodes, key=lambda node: len(node["file"]))["node-name"])  # one may tell of those below it too

    async def pull(self, wanted: LayerPull, progress: Progress) -> None:
        self.write(99, 20 * BLOCK)
        arguments: dict[str, object] = {"job-id": "pull", "device": self.find(wanted.upper), "speed": wanted.speed}
        if wanted.below is not None:
            arguments |= {"base-node": self.find(wanted.below), "backing-file": wanted.backing_name}
        self.ask("block-stream", arguments)
        event = ""
        while event != "BLOCK_JOB_COMPLETED":
            answer = json.loads(self.stream.readline())
            event = answer.get("event", "")
            assert not answer.get("data", {}).get("error"), answer
        progress(1.0)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Puller]:
    daemon = Puller(tmp_path)
    yield daemon
    daemon.close()


@pytest.mark.slow
async def test_a_machine_goes_on_while_its_layers_become_one(shelf: Shelf, machine: Puller) -> None:
    driver, here = shelf.driver, shelf.repository
    await driver.create_disk(here, uuid(1), 4 * MIB)
    for number in range(1, 5):
        write(await shelf.source(1), number, number * BLOCK)
        await driver.snapshot_disk(here, uuid(1), uuid(100 + number), None)
        if number != 1:
            await driver.destroy_disk(here, uuid(100 + number))
    assert shelf.bases() == 4
    machine.open(await shelf.source(1))
    machine.write(50, 10 * BLOCK)
    merged = 0
    while possible := [merge for merge in await driver.merges(here) if merge.upper == f"{uuid(1)}.qcow2"]:
        await refused(24, driver.merge(here, possible[0], lambda _: None, None))
        await driver.merge(here, possible[0], lambda _: None, LiveMerge(machine.pull))
        assert not any(merge.upper == possible[0].upper for merge in await driver.merges(here))
        machine.write(60 + merged, 12 * BLOCK)  # a machine that flushes its disk
        merged += 1
    assert merged == 3
    assert shelf.bases() == 1
    machine.write(51, 11 * BLOCK)
    machine.close()
    tool("qemu-img", "check", "-q", (await shelf.source(1)).path)
    marks = {number: number for number in range(1, 5)} | {10: 50, 11: 51, 12: 62, 20: 99}
    for block, mark in marks.items():
        assert holds(await shelf.source(1), mark, block * BLOCK)
    assert holds(await shelf.source(101), 1, BLOCK)
    assert holds(await shelf.source(101), 0, 10 * BLOCK)


async def test_a_machine_that_is_killed_after_it_named_the_new_backing_file(
    shelf: Shelf, machine: Puller, caplog: pytest.LogCaptureFixture
) -> None:
    """What it had copied was not on the medium: the note that is kept beside the layer brings the old one back."""
    driver, here = shelf.driver, shelf.repository
    await driver.create_disk(here, uuid(1), 64 * MIB)
    tool("qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 32M", (await shelf.source(1)).path)
    await driver.snapshot_disk(here, uuid(1), uuid(2), None)
    await driver.destroy_disk(here, uuid(2))
    machine.open(await shelf.source(1))

    async def pull(wanted: LayerPull, progress: Progress) -> None:
        await machine.pull(wanted, progress)
        machine.process.kill()
        machine.process.communicate(timeout=30)
        machine.stream.close()
        raise ConnectionResetError

    (possible,) = await driver.merges(here)
    with pytest.raises(ConnectionResetError):
        await driver.merge(here, possible, lambda _: None, LiveMerge(pull))
    assert "a merge was cut short" in caplog.text
    # What a file takes on the medium may change by itself, and with it what copying it costs.
    assert [replace(merge, cost=0) for merge in await driver.merges(here)] == [replace(possible, cost=0)]
    assert holds(await shelf.source(1), 1, 0)
    assert holds(await shelf.source(1), 1, 32 * MIB - BLOCK)
    await driver.merge(here, possible, lambda _: None, None)
    assert shelf.bases() == 0
    assert holds(await shelf.source(1), 1, 16 * MIB)
