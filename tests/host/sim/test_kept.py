"""What the simulated hypervisor keeps: memory images, and domains over a restart of the daemon."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import (
    DomainEvent,
    DomainNotFoundError,
    DomainStateChanged,
    DomainStopped,
    HypervisorError,
    RunState,
    StopReason,
)
from tests.host.sim.bench import DISK, MIB, Bench, files, machine


async def test_an_image_is_restored_into_an_equal_machine_only(bench: Bench, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with pytest.raises(DomainNotFoundError):
        await bench.sim.save(1, image)
    await bench.sim.start(machine())
    with pytest.raises(HypervisorError, match="No such file"):
        await bench.sim.save(1, image)
    assert (await bench.sim.status(1)).state is RunState.RUNNING
    image.touch()
    await bench.sim.save(1, image)
    assert bench.events == [DomainStateChanged(1, RunState.PAUSED)]
    await bench.sim.destroy(1)
    for change in ({"memory": 512 * MIB}, {"vcpus_max": 8}, {"disks": (DISK,)}, {"nics": ()}):
        other = dataclasses.replace(machine(2), **change)
        with pytest.raises(HypervisorError, match="saved with"):
            await bench.sim.restore(other, image)
    assert (await bench.sim.restore(machine(2), image)).state is RunState.RUNNING
    assert (await bench.sim.restore(machine(3), image, paused=True)).state is RunState.PAUSED
    for content in (b"", b"not JSON", b"[]", b'{"kind": "other"}'):
        image.write_bytes(content)
        with pytest.raises(HypervisorError, match="no memory image"):
            await bench.sim.restore(machine(4), image)


async def test_domains_outlive_the_daemon(tmp_path: Path) -> None:
    state = tmp_path / "state"
    bench = await Bench(state).open()
    assert bench.found == []
    await bench.sim.start(machine(1))
    await bench.sim.start(machine(2, crash_after="50"))
    await bench.sim.start(machine(3, crash_after="150"))
    await bench.sim.start(machine(10), paused=True)
    await bench.sim.plug_disk(1, dataclasses.replace(DISK, slot=5))
    await bench.clock.advance(40)
    await bench.sim.close()
    await bench.clock.advance(60)
    again = await Bench(state, bench.clock).open()
    assert bench.events == []
    assert [(status.domid, status.state) for status in again.found] == [
        (1, RunState.RUNNING),
        (3, RunState.RUNNING),
        (10, RunState.PAUSED),
    ]
    measured = await again.sim.statistics(1)
    assert measured.cpu_seconds[0] == pytest.approx(2)
    assert sorted(measured.disks) == [0, 3, 5]
    await again.clock.advance(50)
    assert again.events == [DomainStopped(3, StopReason.CRASH)]
    await again.sim.destroy(1)
    await again.sim.destroy(10)
    await again.sim.close()
    assert files(tmp_path) == {}


async def test_without_a_directory_domains_live_as_long_as_the_object(bench: Bench) -> None:
    await bench.sim.start(machine(1, crash_after="5"))
    await bench.sim.close()
    heard: list[DomainEvent] = []
    assert [status.domid for status in await bench.sim.open(heard.append)] == [1]
    await bench.clock.advance(5)
    assert heard == [DomainStopped(1, StopReason.CRASH)]
    assert bench.events == []


async def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "7.json").write_bytes(b"{")
    with pytest.raises(HypervisorError, match=r"7\.json"):
        await Bench(tmp_path).open()
    (tmp_path / "7.json").write_bytes(b"{}")
    with pytest.raises(HypervisorError, match="domid"):
        await Bench(tmp_path).open()


async def test_a_guest_that_crashed_is_kept_where_that_is_asked_for(bench: Bench) -> None:
    await bench.sim.start(dataclasses.replace(machine(), keep_crashed=True, faults={"crash-after": "10"}))
    await bench.clock.advance(11)
    assert bench.events == [DomainStateChanged(1, RunState.CRASHED)]
    await bench.sim.pause(1)
    assert (await bench.sim.status(1)).state is RunState.CRASHED
    await bench.sim.unpause(1)
    await bench.clock.advance(100)
    assert (await bench.sim.status(1)).state is RunState.RUNNING


async def test_whether_it_is_kept_can_be_said_later(bench: Bench) -> None:
    await bench.sim.start(dataclasses.replace(machine(), faults={"crash-after": "10"}))
    await bench.sim.keep_crashed(1, keep=True)
    await bench.clock.advance(11)
    assert bench.events == [DomainStateChanged(1, RunState.CRASHED)]


def readelf(core: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["readelf", "-h", "-l", "-n", core], capture_output=True, text=True, check=True)


async def test_a_core_of_a_guest_that_crashed(bench: Bench, tmp_path: Path) -> None:
    """Checked by `readelf`."""
    await bench.sim.start(dataclasses.replace(machine(), keep_crashed=True, faults={"crash-after": "10"}))
    await bench.clock.advance(11)
    core = tmp_path / "core"
    core.touch()
    told: list[float] = []
    await bench.sim.dump_core(1, core, 1 << 20, told.append)
    assert told == [1.0]
    said = readelf(core)
    assert said.stderr == ""
    assert "CORE (Core file)" in said.stdout
    assert "domzero" in said.stdout
    with pytest.raises(HypervisorError):
        await bench.sim.dump_core(1, core, 10, told.append)
    with pytest.raises(HypervisorError):
        await bench.sim.dump_core(1, tmp_path / "none", 1 << 20, told.append)
