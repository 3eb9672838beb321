"""How much of the host's disks a domain's drives may have."""

from __future__ import annotations

import asyncio
import ctypes
import platform
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import limits
from domzero.host.hypervisor.qemu.process import threads
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskLimits, DiskSpec, IoClass, KernelBoot
from tests.host.qemu.conftest import MIB, Guest, Machine, guest_spec

GET = {"x86_64": 252, "aarch64": 31}.get(platform.machine(), 0)
"""ioprio_get's number."""

any_limits = st.builds(
    DiskLimits,
    st.integers(0, limits.RATE_LIMIT),
    st.integers(0, limits.RATE_LIMIT),
    st.one_of(st.none(), st.sampled_from(IoClass)),
    st.integers(0, 7),
)


@given(any_limits)
def test_records_round_trip(asked: DiskLimits) -> None:
    limits.check(asked)
    assert limits.from_record(limits.record(asked)) == asked


def test_the_best_of_all_drives_counts() -> None:
    idle, low, high = (DiskLimits(io_class=IoClass.IDLE), *(DiskLimits(0, 0, IoClass.BEST_EFFORT, n) for n in (6, 1)))
    assert limits.best([]) == (0, 0)
    assert limits.best([DiskLimits(priority=1)]) == (0, 0)
    assert limits.best([DiskLimits(), idle]) == (3, 0)
    assert limits.best([idle, low, high]) == (2, 1)
    assert limits.best([high, DiskLimits(0, 0, IoClass.REAL_TIME, 7)]) == (1, 7)


@pytest.mark.parametrize("wrong", [DiskLimits(-1), DiskLimits(10**15 + 1), DiskLimits(0, -1), DiskLimits(priority=8)])
def test_impossible_limits(wrong: DiskLimits) -> None:
    with pytest.raises(HypervisorError, match="possible"):
        limits.check(wrong)


def priorities(machine: Machine, domid: int) -> set[tuple[int, int]]:
    """Class and level of every thread of a domain."""
    library = ctypes.CDLL(None)
    pid = machine.hypervisor._domains[domid].pid
    found = {library.syscall(GET, limits.WHO_THREAD, thread) for thread in threads(pid)}
    # QEMU's threads for I/O come and go: one that went before it was asked about has none.
    return {(value >> limits.CLASS_SHIFT, value & 0xFF) for value in found if value >= 0}


async def rates(machine: Machine, domid: int, slot: int) -> tuple[int, int]:
    """Bytes and operations a second that QEMU lets a drive have."""
    found = await machine.hypervisor._domains[domid].monitor.execute("query-block")
    inserted = next(block["inserted"] for block in found if f"/disk-{slot}/" in f"/{block.get('qdev', '')}/")
    return inserted["bps"], inserted["iops"]


async def seconds_to_read(guest: Guest, size: int) -> float:
    await guest.console.run("echo 3 > /proc/sys/vm/drop_caches")
    began = time.monotonic()
    await guest.console.run(f"head -c {size} /dev/vdb > /dev/null")
    return time.monotonic() - began


@pytest.mark.qemu
async def test_rates_hold_through_switches_and_daemons(machine: Machine, guest: Guest) -> None:
    hypervisor, domid = machine.hypervisor, guest.domid
    disk = machine.image("limited", "16M")
    slow = DiskLimits(bytes_per_second=2 * MIB)
    await hypervisor.plug_disk(domid, DiskSpec(1, DiskKind.DISK, disk, limits=slow))
    await guest.console.eventually("test -b /dev/vdb")
    assert await seconds_to_read(guest, 4 * MIB) > 1
    await hypervisor.switch_disk(domid, 1, machine.image("new", "-b", "limited", "-F", "qcow2", "16M"))
    assert await seconds_to_read(guest, 4 * MIB) > 1
    await hypervisor.limit_disk(domid, 1, DiskLimits(operations_per_second=20))
    assert await seconds_to_read(guest, 4 * MIB) > 0.5
    await hypervisor.close()
    machine.hypervisor = hypervisor = machine.driver()
    await hypervisor.open(machine.events)
    await hypervisor.limit_disk(domid, 1, None)
    assert await rates(machine, domid, 1) == (0, 0)
    with pytest.raises(HypervisorError, match="no disk"):
        await hypervisor.limit_disk(domid, 9, slow)
    with pytest.raises(HypervisorError, match="possible"):
        await hypervisor.plug_disk(domid, DiskSpec(2, DiskKind.DISK, disk, limits=DiskLimits(priority=9)))


@pytest.mark.qemu
async def test_a_drives_limit_waits_for_a_medium(machine: Machine, guest: Guest) -> None:
    hypervisor, domid = machine.hypervisor, guest.domid
    await hypervisor.limit_disk(domid, 3, DiskLimits(bytes_per_second=MIB))
    await hypervisor.change_medium(domid, 3, machine.image("disc.iso", "4M", format=DiskFormat.RAW))
    assert await rates(machine, domid, 3) == (MIB, 0)


@pytest.mark.qemu
@pytest.mark.skipif(GET == 0, reason="the test does not know ioprio_get's number here")
async def test_priorities(machine: Machine, guest: Guest) -> None:
    hypervisor, domid = machine.hypervisor, guest.domid
    assert {io_class for io_class, _ in priorities(machine, domid)} == {0}
    await hypervisor.limit_disk(domid, 0, DiskLimits(io_class=IoClass.IDLE))
    assert priorities(machine, domid) == {(3, 0)}
    second = DiskSpec(
        1, DiskKind.DISK, machine.image("second", "8M"), limits=DiskLimits(io_class=IoClass.BEST_EFFORT, priority=2)
    )
    await hypervisor.plug_disk(domid, second)
    await hypervisor.set_vcpus(domid, 2)  # a new thread
    assert priorities(machine, domid) == {(2, 2)}
    await guest.console.eventually("test -b /dev/vdb")
    await asyncio.gather(guest.console.run("cat /dev/vdb > /dev/null"), hypervisor.statistics(domid))
    assert priorities(machine, domid) == {(2, 2)}
    await hypervisor.close()
    machine.hypervisor = hypervisor = machine.driver()
    await hypervisor.open(machine.events)
    await hypervisor.unplug_disk(domid, 1)
    assert priorities(machine, domid) == {(3, 0)}
    await hypervisor.limit_disk(domid, 0, None)
    assert {io_class for io_class, _ in priorities(machine, domid)} == {0}


@pytest.mark.qemu
async def test_a_host_without_priorities_runs_machines(
    machine: Machine, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SYSTEM_CALLS", {})
    hypervisor, asked = machine.hypervisor, DiskLimits(MIB, 0, IoClass.REAL_TIME)
    await hypervisor.plug_disk(guest.domid, DiskSpec(1, DiskKind.DISK, machine.image("limited", "8M"), limits=asked))
    assert await rates(machine, guest.domid, 1) == (MIB, 0)
    with pytest.raises(HypervisorError, match="priorities are not known"):
        await hypervisor.limit_disk(guest.domid, 1, DiskLimits(0, 0, IoClass.REAL_TIME))
    assert await rates(machine, guest.domid, 1) == (MIB, 0)


@pytest.mark.qemu
@pytest.mark.skipif(GET == 0, reason="the test does not know ioprio_get's number here")
async def test_limits_from_the_start(machine: Machine, boot: KernelBoot) -> None:
    spec = guest_spec(boot, machine.image("disk", "16M"))
    asked = DiskLimits(MIB, 100, IoClass.BEST_EFFORT, 0)
    await machine.hypervisor.start(replace(spec, disks=(replace(spec.disks[0], limits=asked),)), paused=True)
    assert priorities(machine, spec.domid) == {(2, 0)}
    assert await rates(machine, spec.domid, 0) == (MIB, 100)
