"""A simulator on a clock moved by hand, and a machine to run in it."""

from __future__ import annotations

from pathlib import Path

from domzero.host.clock import ManualClock
from domzero.host.hypervisor.protocol import DomainEvent
from domzero.host.hypervisor.sim import SimHypervisor
from domzero.host.hypervisor.spec import (
    DiskFormat,
    DiskKind,
    DiskSource,
    DiskSpec,
    FirmwareBoot,
    MachineSpec,
    NicSpec,
    UserBackend,
)

MIB = 1 << 20
DISK = DiskSpec(0, DiskKind.DISK, DiskSource(Path("/sr/disk.qcow2"), DiskFormat.QCOW2), bootable=True)
DRIVE = DiskSpec(3, DiskKind.CD, None, read_only=True)
NIC = NicSpec(0, "02:00:00:00:00:01", 1500, UserBackend())


def machine(domid: int = 1, /, **faults: str) -> MachineSpec:
    return MachineSpec(
        uuid=f"00000000-0000-4000-8000-{domid:012d}",
        name=f"guest {domid}",
        domid=domid,
        memory=256 * MIB,
        memory_target=128 * MIB,
        vcpus_max=4,
        vcpus=2,
        boot=FirmwareBoot("cd"),
        disks=(DISK, DRIVE),
        nics=(NIC,),
        faults={f"sim:{key.replace('_', '-')}": value for key, value in faults.items()},
    )


class Bench:
    """A simulator, its clock, and what it said."""

    def __init__(self, state: Path | None = None, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.sim = SimHypervisor(self.clock, state=state)
        self.events: list[DomainEvent] = []

    async def open(self) -> Bench:
        self.found = await self.sim.open(self.events.append)
        return self


def files(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
