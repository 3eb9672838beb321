"""Disks that grow, are limited and lose layers, in the simulator."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import DiskCounters, DomainNotFoundError, HypervisorError
from domzero.host.hypervisor.spec import (
    DiskFormat,
    DiskLimits,
    DiskSource,
    DiskSpec,
    Extent,
    IoClass,
    LayerPull,
    RemoteImage,
)
from tests.host.sim.bench import DISK, MIB, Bench, files, machine


def layer(name: str) -> DiskSource:
    return DiskSource(Path("/sr") / name, DiskFormat.QCOW2)


CHAIN = dataclasses.replace(layer("top"), backing=(layer("b2"), layer("b1"), layer("base")))


def place_names(bench: Bench, slot: int) -> list[str]:
    source = bench.sim._domains[1].disks[slot].spec.source
    assert source is not None
    return [source.path.name, *(below.path.name for below in source.backing or ())]


@pytest.mark.parametrize(
    ("upper", "below", "left"),
    [
        ("top", "base", ["top", "base"]),
        ("top", None, ["top"]),
        ("b2", "base", ["top", "b2", "base"]),
        ("b2", None, ["top", "b2"]),
        ("b1", "base", ["top", "b2", "b1", "base"]),
        ("elsewhere", None, ["top", "b2", "b1", "base"]),
    ],
)
async def test_layers_between_vanish(bench: Bench, upper: str, below: str | None, left: list[str]) -> None:
    await bench.sim.start(dataclasses.replace(machine(), disks=(DiskSpec(0, DISK.kind, CHAIN),)))
    told: list[float] = []
    below_path = None if below is None else Path("/sr") / below
    await bench.sim.pull_layer(1, 0, LayerPull(Path("/sr") / upper, below_path, below), told.append)
    assert place_names(bench, 0) == left
    assert told == [1.0]


async def test_a_pull_reports_and_can_be_cancelled(bench: Bench) -> None:
    disks = (DiskSpec(0, DISK.kind, CHAIN), DiskSpec(1, DISK.kind, CHAIN))
    await bench.sim.start(dataclasses.replace(machine(delay_pull_layer="100"), disks=disks))
    told: list[float] = []
    pull = LayerPull(Path("/sr/top"), Path("/sr/base"), "base")
    job = asyncio.ensure_future(bench.sim.pull_layer(1, 0, pull, told.append))
    await bench.clock.advance(0)
    for _ in range(4):
        await bench.clock.advance(10)
    assert told == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    job.cancel()
    await asyncio.wait({job})
    assert len(place_names(bench, 0)) == 4
    job = asyncio.ensure_future(bench.sim.pull_layer(1, 0, LayerPull(Path("/sr/b1"), Path("/sr/b2"), "b2"), print))
    for _ in range(11):
        await bench.clock.advance(10)
    with pytest.raises(HypervisorError, match="above"):
        await job
    job = asyncio.ensure_future(bench.sim.pull_layer(1, 1, pull, told.append))
    await bench.clock.advance(15)
    await bench.sim.unplug_disk(1, 1)
    for _ in range(10):
        await bench.clock.advance(10)
    with pytest.raises(HypervisorError, match="taken out"):
        await job
    with pytest.raises(HypervisorError, match="empty"):
        await bench.sim.pull_layer(1, 1, pull, print)
    job = asyncio.ensure_future(bench.sim.pull_layer(1, 0, pull, print))
    await bench.clock.advance(15)
    await bench.sim.destroy(1)
    for _ in range(10):
        await bench.clock.advance(10)
    with pytest.raises(DomainNotFoundError):
        await job


async def test_disks_only_grow(bench: Bench) -> None:
    await bench.sim.start(machine())
    await bench.sim.resize_disk(1, 0, 64 * MIB)
    await bench.sim.resize_disk(1, 0, 64 * MIB)
    with pytest.raises(HypervisorError, match="cannot have"):
        await bench.sim.resize_disk(1, 0, 63 * MIB)
    with pytest.raises(HypervisorError, match="read-only"):
        await bench.sim.resize_disk(1, 3, 64 * MIB)


async def test_limits_slow_the_guest_from_then_on(bench: Bench) -> None:
    await bench.sim.start(machine(read_rate="1000", write_rate="100"))
    await bench.clock.advance(10)
    await bench.sim.limit_disk(1, 0, DiskLimits(bytes_per_second=200, io_class=IoClass.IDLE))
    await bench.clock.advance(10)
    await bench.sim.limit_disk(1, 0, None)
    await bench.clock.advance(10)
    assert (await bench.sim.statistics(1)).disks[0] == DiskCounters(10_000 + 2_000 + 10_000, 3_000)
    for limits in (DiskLimits(-1), DiskLimits(0, -1), DiskLimits(priority=8)):
        with pytest.raises(HypervisorError):
            await bench.sim.limit_disk(1, 0, limits)
        with pytest.raises(HypervisorError):
            await bench.sim.plug_disk(1, dataclasses.replace(DISK, slot=5, limits=limits))


async def test_every_kind_of_place_survives_the_daemon_without_its_password(tmp_path: Path) -> None:
    secret = "open sesame"
    places: tuple[Path | Extent | RemoteImage, ...] = (
        Path("/sr/disk"),
        Extent(Path("/dev/sdb"), 1 << 20, 8 << 20),
        RemoteImage("iscsi", (("portal", "10.0.0.1:3260"), ("lun", 1)), "password-secret", secret),
    )
    limits = DiskLimits(1000, 10, IoClass.REAL_TIME, 2)
    disks = tuple(
        dataclasses.replace(DISK, slot=slot, source=DiskSource(place, DiskFormat.RAW), limits=limits)
        for slot, place in enumerate(places)
    )
    bench = await Bench(tmp_path).open()
    await bench.sim.start(dataclasses.replace(machine(), disks=disks))
    await bench.sim.resize_disk(1, 1, 16 << 20)
    await bench.sim.close()
    again = await Bench(tmp_path, bench.clock).open()
    found = again.sim._domains[1].disks
    assert [found[slot].spec.limits for slot in range(3)] == [limits] * 3
    assert [str(found[slot].spec.source.place) for slot in range(3)] == [str(place) for place in places]  # type: ignore[union-attr]  # a disk
    assert found[1].size == 16 << 20
    assert not any(secret.encode() in content for content in files(tmp_path).values())
