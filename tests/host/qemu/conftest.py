"""One guest is booted and saved per test session; each test restores it in a tenth of a second."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from domzero.host.hypervisor.protocol import DomainEvent, DomainStatus, DomainStopped
from domzero.host.hypervisor.qemu.driver import Limits, QemuHypervisor, UserRange
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskSource, DiskSpec, KernelBoot, MachineSpec
from tests.host.qemu import initramfs
from tests.host.qemu.guest import Console

MIB = 1 << 20
USERS = UserRange(1_900_000_000, 1000) if os.geteuid() == 0 else None
_domids = itertools.count(1)


class Events:
    """A listener that remembers and can be waited for."""

    def __init__(self) -> None:
        self.all: list[DomainEvent] = []
        self._more = asyncio.Event()

    def __call__(self, event: DomainEvent) -> None:
        self.all.append(event)
        self._more.set()

    async def stopped(self, domid: int, timeout: float = 60.0) -> DomainStopped:
        async with asyncio.timeout(timeout):
            while True:
                for event in self.all:
                    if isinstance(event, DomainStopped) and event.domid == domid:
                        return event
                self._more.clear()
                await self._more.wait()

    def of(self, domid: int) -> list[DomainEvent]:
        return [event for event in self.all if event.domid == domid]


@dataclass
class Machine:
    """A directory in which domains run, and the driver that runs them."""

    directory: Path
    events: Events
    hypervisor: QemuHypervisor

    def driver(self, limits: Limits | None = None) -> QemuHypervisor:
        """Another driver of the same directory."""
        return QemuHypervisor(
            self.directory / "run", self.directory / "state", users=USERS, limits=limits or Limits(guest=30)
        )

    def image(self, name: str, *options: str, format: DiskFormat = DiskFormat.QCOW2) -> DiskSource:
        """A new image in the repository, made by `qemu-img create`."""
        path = self.directory / "images" / name
        path.parent.mkdir(exist_ok=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", format.value, *options[:-1], path, options[-1]], check=True)
        return DiskSource(path, format)


@asynccontextmanager
async def machine_in(directory: Path) -> AsyncIterator[Machine]:
    events = Events()
    machine = Machine(directory, events, QemuHypervisor(directory / "none", directory / "none"))
    machine.hypervisor = machine.driver()
    await machine.hypervisor.open(events)
    try:
        yield machine
    finally:
        await machine.hypervisor.close()
        cleaner = machine.driver()
        for status in await cleaner.open(events):
            await cleaner.destroy(status.domid)
        await cleaner.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: sockets are made in it."""
    path = Path(tempfile.mkdtemp(prefix="dz-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def machine(directory: Path) -> AsyncIterator[Machine]:
    async with machine_in(directory) as machine:
        yield machine


@pytest.fixture(scope="session")
def boot(tmp_path_factory: pytest.TempPathFactory) -> KernelBoot:
    ramdisk = initramfs.build(tmp_path_factory.mktemp("guest") / "initrd")
    return KernelBoot(initramfs.kernel(), ramdisk, "console=ttyS0 panic=-1 quiet")


def guest_spec(boot: KernelBoot, source: DiskSource) -> MachineSpec:
    domid = next(_domids)
    return MachineSpec(
        uuid=str(uuid4()),  # tests find processes by it, and others may have domains of the same number
        name="test, guest",
        domid=domid,
        memory=128 * MIB,
        memory_target=128 * MIB,
        vcpus_max=2,
        vcpus=1,
        boot=boot,
        disks=(
            DiskSpec(0, DiskKind.DISK, source),
            DiskSpec(3, DiskKind.CD, None),
        ),
    )


@pytest.fixture(scope="session")
def saved(boot: KernelBoot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The memory of a booted guest with an empty 16 MiB disk in slot 0 and an empty CD drive in slot 3."""
    image = tmp_path_factory.mktemp("saved") / "memory"
    image.touch()

    async def boot_and_save(directory: Path) -> None:
        async with machine_in(directory) as machine:
            spec = guest_spec(boot, machine.image("disk", "16M"))
            status = await machine.hypervisor.start(spec)
            assert status.serial_socket is not None
            async with Console(status.serial_socket) as console:
                await console.expect("GUEST UP", 60)
                await console.run("test -b /dev/vda")
            await machine.hypervisor.save(spec.domid, image)

    with tempfile.TemporaryDirectory(prefix="dz-") as directory:
        asyncio.run(boot_and_save(Path(directory)))
    return image


@dataclass
class Guest:
    """A restored guest that answers."""

    spec: MachineSpec
    status: DomainStatus
    console: Console
    disk: DiskSource

    @property
    def domid(self) -> int:
        return self.spec.domid


@pytest.fixture
async def guest(machine: Machine, boot: KernelBoot, saved: Path) -> AsyncIterator[Guest]:
    disk = machine.image("disk", "16M")
    spec = guest_spec(boot, disk)
    status = await machine.hypervisor.restore(replace(spec), saved)
    assert status.serial_socket is not None
    async with Console(status.serial_socket) as console:
        yield Guest(spec, status, console, disk)
