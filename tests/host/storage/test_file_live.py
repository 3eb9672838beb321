"""Snapshots of disks that QEMU's own block layer has open: a storage daemon stands for the machine."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskSource
from domzero.host.storage.files import layers
from tests.host.storage.disks import MIB, Shelf, holds, refused, tool, uuid

BLOCK = 65536


class StorageDaemon:
    """Has one disk open for writing and serves it by NBD, as a machine would use it."""

    def __init__(self, directory: Path) -> None:
        self.control, self.nbd = directory / "control", directory / "nbd"
        argv = ["qemu-storage-daemon", "--chardev", f"socket,id=c,path={self.control},server=on,wait=on"]
        argv += ["--monitor", "c", "--nbd-server", f"addr.type=unix,addr.path={self.nbd}"]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE)
        self.layer = 0

    def open(self, source: DiskSource) -> None:
        connection = socket.socket(socket.AF_UNIX)
        while connection.connect_ex(str(self.control)) != 0:
            assert self.process.poll() is None
        self.stream = connection.makefile("rw")
        connection.close()
        self.stream.readline()
        self.ask("qmp_capabilities")
        file = {"driver": "file", "filename": str(source.path)}
        self.ask("blockdev-add", {"driver": "qcow2", "node-name": "layer0", "file": file})
        export = {"type": "nbd", "id": "disk", "node-name": "layer0", "name": "disk", "writable": True}
        self.ask("block-export-add", export)

    def ask(self, command: str, arguments: dict[str, object] | None = None) -> None:
        self.stream.write(json.dumps({"execute": command, "arguments": arguments or {}}) + "\n")
        self.stream.flush()
        while True:
            answer = json.loads(self.stream.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return

    async def switch(self, source: DiskSource) -> None:
        below, self.layer = f"layer{self.layer}", self.layer + 1
        name = f"layer{self.layer}"
        file = {"driver": "file", "filename": str(source.path)}
        self.ask("blockdev-add", {"driver": "qcow2", "node-name": name, "file": file, "backing": None})
        self.ask("blockdev-snapshot", {"node": below, "overlay": name})

    def write(self, mark: int, offset: int) -> None:
        tool("qemu-io", "-f", "raw", "-c", f"write -q -P {mark} {offset} 64k", f"nbd+unix:///disk?socket={self.nbd}")

    def close(self) -> None:
        if self.process.returncode is not None:
            return
        if hasattr(self, "stream"):
            self.ask("quit")
            self.stream.close()
        else:
            self.process.kill()
        self.process.communicate(timeout=30)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[StorageDaemon]:
    daemon = StorageDaemon(tmp_path)
    yield daemon
    daemon.close()


@pytest.mark.slow
async def test_a_disk_in_use_is_snapshotted_merged_and_found_again(
    shelf: Shelf, machine: StorageDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "MERGE_FROM", 5)
    driver, here = shelf.driver, shelf.repository
    await driver.create_disk(here, uuid(1), 2 * MIB)
    machine.open(await shelf.source(1))
    for turn in range(1, 16):
        machine.write(turn, turn * BLOCK)
        await driver.snapshot_disk(here, uuid(1), uuid(100 + turn), machine.switch)
        machine.write(turn + 100, 0)
        copy = await shelf.source(100 + turn)
        assert holds(copy, turn, turn * BLOCK)
        assert holds(copy, 0 if turn == 1 else turn + 99, 0)
        await refused(24, driver.resize_disk(here, uuid(1), 4 * MIB))
        if turn != 7:
            await driver.destroy_disk(here, uuid(100 + turn))
    await shelf.numbers()
    assert len(layers.read_chain(shelf.directory, layers.disk_name(uuid(1)))) <= 7
    machine.close()
    for turn in range(1, 16):
        assert holds(await shelf.source(1), turn, turn * BLOCK)
        assert holds(await shelf.source(107), turn if turn <= 7 else 0, turn * BLOCK)
    assert holds(await shelf.source(1), 115, 0)
    await driver.clone_disk(here, uuid(1), uuid(2))
    assert holds(await shelf.source(2), 115, 0)
    for number in (1, 2, 107):
        tool("qemu-img", "check", "-q", (await shelf.source(number)).path)
        await driver.destroy_disk(here, uuid(number))
    assert shelf.files() == []
