"""A disk of several layers for a test guest, and what can be said of it from outside."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskSource, DiskSpec
from domzero.host.process import run
from tests.host.qemu.conftest import MIB, Guest, Machine

SIZE = 24 * MIB
PATTERN = 4 * MIB
LAYERS = ("base", "b1", "b2", "top")
LOAD = 16 * MIB
"""From here on the guest may write while something else goes on."""


@dataclass
class Chain:
    """base <- b1 <- b2 <- top; each of the first three has 4 MiB of its own, and some of them the next one hides."""

    machine: Machine
    paths: dict[str, Path]

    def source(self, top: str = "top") -> DiskSource:
        return DiskSource(self.paths[top], DiskFormat.QCOW2)

    async def backing(self, name: str) -> list[str]:
        """The names in the headers from a layer downwards, the last first, each with its format."""
        said = await run(["qemu-img", "info", "-U", "--backing-chain", "--output=json", self.paths[name]])
        return [Path(info["filename"]).name for info in json.loads(said.stdout)]

    async def digest(self, top: str = "top") -> str:
        """Of the disk's whole content, which nobody writes meanwhile."""
        flat = self.machine.directory / "flat"
        await run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", self.paths[top], flat])
        return hashlib.md5(await asyncio.to_thread(flat.read_bytes)).hexdigest()


async def chain(machine: Machine) -> Chain:
    """Make the layers."""
    paths: dict[str, Path] = {}
    below: Path | None = None
    for number, name in enumerate(LAYERS):
        options = [] if below is None else ["-b", str(below.name), "-F", "qcow2"]
        paths[name] = machine.image(name, *options, str(SIZE)).path
        if name != "top":
            start = number * PATTERN * 3 // 4
            await run(["qemu-io", "-f", "qcow2", "-c", f"write -P {number + 1} {start} {PATTERN}", paths[name]])
        below = paths[name]
    return Chain(machine, paths)


async def plug(machine: Machine, guest: Guest, disk: DiskSource, slot: int = 1) -> None:
    """Add a disk, and return when the guest has it as /dev/vdb."""
    await machine.hypervisor.plug_disk(guest.domid, DiskSpec(slot, DiskKind.DISK, disk))
    await guest.console.eventually("test -b /dev/vdb")


async def guests_digest(guest: Guest) -> str:
    """Of what the guest reads from its disk, not from its cache."""
    await guest.console.run("sync; echo 3 > /proc/sys/vm/drop_caches")
    return (await guest.console.run("md5sum < /dev/vdb", 60)).split()[0]


class Load:
    """A guest that writes to the end of its disk without pause."""

    def __init__(self, guest: Guest) -> None:
        self._console = guest.console

    async def start(self) -> None:
        await self._console.run(
            "rm -f /stop; (n=0; while [ ! -e /stop ]; do n=$((n+1)); "
            f"dd if=/dev/urandom of=/dev/vdb bs=64k count=8 seek=$(({LOAD} / 65536 + n % 16 * 8)) conv=fsync,notrunc "
            "2>/dev/null || echo WRITE FAILED; echo $n > /written; done) &"
        )
        await self._console.eventually("test -s /written")

    async def stop(self) -> int:
        """How many rounds were written."""
        await self._console.run("touch /stop; wait $! ; sleep 1; test -z ''")
        assert "WRITE FAILED" not in self._console.text
        return int(await self._console.run("cat /written"))


def open_files(pid: int) -> set[tuple[int, int]]:
    """Device and inode of every file a process has open."""
    found = set()
    for entry in (Path("/proc") / str(pid) / "fd").iterdir():
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue  # closed meanwhile
        found.add((status.st_dev, status.st_ino))
    return found


def identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
