"""The simulated hypervisor keeps the contract of `Hypervisor` and does what its faults say."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import (
    DomainNotFoundError,
    DomainStateChanged,
    DomainStopped,
    GuestNotRespondingError,
    Hypervisor,
    HypervisorError,
    RunState,
    StopReason,
)
from domzero.host.hypervisor.sim import VERBS, SimHypervisor, WaitingVerb
from domzero.host.hypervisor.spec import DiskFormat, DiskLimits, DiskSource, LayerPull, Scheduling
from tests.host.sim.bench import DISK, MIB, NIC, Bench, files, machine


async def test_a_domain_lives_and_dies(bench: Bench) -> None:
    sim: Hypervisor = bench.sim
    status = await sim.start(machine(), paused=True)
    assert (status.domid, status.uuid, status.state) == (1, machine().uuid, RunState.PAUSED)
    assert status.processor is not None
    assert (await sim.status(1)).processor is None
    await sim.unpause(1)
    await sim.unpause(1)
    await sim.pause(1)
    await sim.pause(1)
    assert (await sim.status(1)).state is RunState.PAUSED
    await sim.destroy(1)
    assert bench.events == [
        DomainStateChanged(1, RunState.RUNNING),
        DomainStateChanged(1, RunState.PAUSED),
        DomainStopped(1, StopReason.DESTROYED),
    ]
    with pytest.raises(DomainNotFoundError):
        await sim.status(1)
    await sim.close()


@pytest.mark.parametrize(
    "change",
    [{"domid": 0}, {"vcpus": 0}, {"vcpus": 5}, {"memory_target": 512 * MIB}, {"disks": (DISK, DISK)}],
    ids=lambda change: next(iter(change)),
)
async def test_impossible_machines_are_refused(bench: Bench, change: dict[str, object]) -> None:
    with pytest.raises(HypervisorError):
        await bench.sim.start(dataclasses.replace(machine(), **change))  # type: ignore[arg-type]  # any field
    assert bench.events == []
    await bench.sim.start(machine())


async def test_a_domid_is_used_once(bench: Bench) -> None:
    first = asyncio.ensure_future(bench.sim.start(machine(delay_start="5")))
    await asyncio.sleep(0)
    with pytest.raises(HypervisorError, match="domain 1"):
        await bench.sim.start(machine())
    await bench.clock.advance(5)
    assert (await first).domid == 1
    with pytest.raises(HypervisorError, match="domain 1"):
        await bench.sim.start(machine())


@pytest.mark.parametrize(
    ("faults", "seconds", "reason"),
    [
        ({"crash_after": "10"}, 10, StopReason.CRASH),
        ({"reboot_after": "10"}, 10, StopReason.REBOOT),
        ({"shutdown_after": "10"}, 10, StopReason.SHUTDOWN),
        ({"shutdown_after": "10", "crash_after": "10", "reboot_after": "10"}, 10, StopReason.CRASH),
    ],
)
async def test_guests_end_by_themselves(
    bench: Bench, faults: dict[str, str], seconds: float, reason: StopReason
) -> None:
    await bench.sim.start(machine(**faults))
    await bench.clock.advance(seconds - 0.001)
    assert bench.events == []
    await bench.clock.advance(0.002)
    assert bench.events == [DomainStopped(1, reason)]


async def test_a_paused_guest_does_not_age(bench: Bench) -> None:
    await bench.sim.start(machine(crash_after="10"))
    await bench.clock.advance(6)
    await bench.sim.pause(1)
    await bench.clock.advance(100)
    await bench.sim.unpause(1)
    await bench.clock.advance(3)
    assert (await bench.sim.statistics(1)).cpu_seconds == pytest.approx((9 * 0.02, 9 * 0.02, 0, 0))
    await bench.clock.advance(1.5)
    assert bench.events[-1] == DomainStopped(1, StopReason.CRASH)


async def test_the_power_button(bench: Bench) -> None:
    await bench.sim.start(machine(1))
    await bench.sim.start(machine(2, shutdown_delay="30"))
    await bench.sim.start(machine(3, ignore_shutdown="true"))
    for domid in (1, 2, 3):
        await bench.sim.request_shutdown(domid)
    await bench.clock.advance(0)
    assert bench.events == [DomainStopped(1, StopReason.SHUTDOWN)]
    await bench.clock.advance(20)
    await bench.sim.request_shutdown(2)
    await bench.clock.advance(20)
    assert bench.events[1:] == [DomainStopped(2, StopReason.SHUTDOWN)]
    await bench.clock.advance(1e6)
    assert (await bench.sim.status(3)).state is RunState.RUNNING


Call = Callable[[SimHypervisor, Path], Awaitable[object]]
CALLS: dict[str, Call] = {
    "start": lambda sim, image: sim.start(machine(2, fail_start="asked for", delay_start="7")),
    "restore": lambda sim, image: sim.restore(machine(2, fail_restore="asked for", delay_restore="7"), image),
    "save": lambda sim, image: sim.save(1, image),
    "dump-core": lambda sim, image: sim.dump_core(1, image, MIB, print),
    "keep-crashed": lambda sim, image: sim.keep_crashed(1, keep=True),
    "pause": lambda sim, image: sim.pause(1),
    "unpause": lambda sim, image: sim.unpause(1),
    "shutdown": lambda sim, image: sim.request_shutdown(1),
    "destroy": lambda sim, image: sim.destroy(1),
    "plug-disk": lambda sim, image: sim.plug_disk(1, dataclasses.replace(DISK, slot=5)),
    "unplug-disk": lambda sim, image: sim.unplug_disk(1, 0),
    "change-medium": lambda sim, image: sim.change_medium(1, 3, DISK.source),
    "switch-disk": lambda sim, image: sim.switch_disk(1, 0, DiskSource(Path("/sr/new"), DiskFormat.QCOW2)),
    "resize-disk": lambda sim, image: sim.resize_disk(1, 0, 64 * MIB),
    "limit-disk": lambda sim, image: sim.limit_disk(1, 0, DiskLimits(bytes_per_second=100)),
    "pull-layer": lambda sim, image: sim.pull_layer(1, 0, LayerPull(Path("/sr/disk.qcow2"), None, None), print),
    "plug-nic": lambda sim, image: sim.plug_nic(1, dataclasses.replace(NIC, slot=5)),
    "unplug-nic": lambda sim, image: sim.unplug_nic(1, 0),
    "memory": lambda sim, image: sim.set_memory_target(1, 64 * MIB),
    "vcpus": lambda sim, image: sim.set_vcpus(1, 4),
    "schedule": lambda sim, image: sim.schedule(1, Scheduling(weight=512)),
    "sysrq": lambda sim, image: sim.send_sysrq(1, "c"),
    "trigger": lambda sim, image: sim.send_trigger(1, "reset"),
}


def test_every_verb_is_called() -> None:
    assert tuple(CALLS) == VERBS


@pytest.mark.parametrize("verb", VERBS)
async def test_every_verb_fails_when_asked_and_changes_nothing(tmp_path: Path, verb: str) -> None:
    bench = await Bench(tmp_path / "state").open()
    image = tmp_path / "image"
    image.touch()
    await bench.sim.start(machine(**{f"fail-{verb}": "asked for", f"delay-{verb}": "7"} if verb != "start" else {}))
    before = files(tmp_path)
    call = asyncio.ensure_future(CALLS[verb](bench.sim, image))
    await bench.clock.advance(6.9)
    assert not call.done()
    await bench.clock.advance(0.2)
    with pytest.raises(HypervisorError, match="asked for"):
        await call
    assert bench.events == []
    assert files(tmp_path) == before
    assert (await bench.sim.status(1)).state is RunState.RUNNING
    with pytest.raises(DomainNotFoundError):
        await bench.sim.status(2)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("start", "restore")])
async def test_every_verb_wants_a_living_domain(bench: Bench, tmp_path: Path, verb: str) -> None:
    with pytest.raises(DomainNotFoundError):
        await CALLS[verb](bench.sim, tmp_path / "image")


async def test_verbs_wait_for_a_step(bench: Bench) -> None:
    assert bench.sim.step() is None
    start = asyncio.ensure_future(bench.sim.start(machine(step="true")))
    await bench.clock.advance(1000)
    assert not start.done()
    assert bench.sim.waiting() == [WaitingVerb("start", 1)]
    assert bench.sim.step() == WaitingVerb("start", 1)
    await start
    pause = asyncio.ensure_future(bench.sim.pause(1))
    destroy = asyncio.ensure_future(bench.sim.destroy(1))
    unpause = asyncio.ensure_future(bench.sim.unpause(1))
    await asyncio.sleep(0)
    pause.cancel()
    await asyncio.wait({pause})
    assert [waiting.verb for waiting in bench.sim.waiting()] == ["destroy", "unpause"]
    bench.sim.step()
    await destroy
    bench.sim.step()
    with pytest.raises(DomainNotFoundError):
        await unpause


async def test_a_cancelled_start_leaves_nothing(bench: Bench) -> None:
    start = asyncio.ensure_future(bench.sim.start(machine(delay_start="5")))
    await bench.clock.advance(1)
    start.cancel()
    await asyncio.wait({start})
    await bench.sim.start(machine())


async def test_devices_come_and_go(bench: Bench) -> None:
    sim = bench.sim
    await sim.start(machine(read_rate="100", write_rate="10"))
    await bench.clock.advance(10)
    await sim.plug_disk(1, dataclasses.replace(DISK, slot=5))
    with pytest.raises(HypervisorError, match="5"):
        await sim.plug_disk(1, dataclasses.replace(DISK, slot=5))
    await bench.clock.advance(10)
    disks = (await sim.statistics(1)).disks
    assert {slot: (disk.read_bytes, disk.written_bytes) for slot, disk in disks.items()} == {
        0: (2000, 200),
        3: (0, 0),
        5: (1000, 100),
    }
    await sim.unplug_disk(1, 5)
    with pytest.raises(HypervisorError, match="5"):
        await sim.unplug_disk(1, 5)
    await sim.change_medium(1, 3, DISK.source)
    await sim.change_medium(1, 3, None)
    with pytest.raises(HypervisorError, match="CD"):
        await sim.change_medium(1, 0, None)
    with pytest.raises(HypervisorError, match="read-only"):
        await sim.switch_disk(1, 3, DiskSource(Path("/sr/new"), DiskFormat.QCOW2))
    await sim.plug_nic(1, dataclasses.replace(NIC, slot=1))
    await sim.unplug_nic(1, 1)
    with pytest.raises(HypervisorError, match="1"):
        await sim.unplug_nic(1, 1)


async def test_a_stubborn_guest_keeps_its_devices(bench: Bench) -> None:
    await bench.sim.start(machine(ignore_unplug="true", ignore_balloon="true"))
    with pytest.raises(GuestNotRespondingError):
        await bench.sim.unplug_disk(1, 0)
    with pytest.raises(GuestNotRespondingError):
        await bench.sim.unplug_nic(1, 0)
    await bench.sim.unplug_disk(1, 0, force=True)
    await bench.sim.unplug_nic(1, 0, force=True)
    await bench.sim.set_memory_target(1, 64 * MIB)
    assert (await bench.sim.statistics(1)).memory_actual == 128 * MIB


async def test_memory_and_processors(bench: Bench) -> None:
    await bench.sim.start(machine(cpu_load="0.5"))
    await bench.sim.set_memory_target(1, 200 * MIB)
    await bench.clock.advance(2)
    await bench.sim.set_vcpus(1, 4)
    await bench.clock.advance(2)
    measured = await bench.sim.statistics(1)
    assert (measured.memory_actual, measured.cpu_seconds) == (200 * MIB, (2, 2, 1, 1))
    for count in (0, 5):
        with pytest.raises(HypervisorError):
            await bench.sim.set_vcpus(1, count)
    with pytest.raises(HypervisorError):
        await bench.sim.set_memory_target(1, 257 * MIB)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda sim: sim.send_sysrq(1, "c"), StopReason.CRASH),
        (lambda sim: sim.send_sysrq(1, "b"), StopReason.REBOOT),
        (lambda sim: sim.send_sysrq(1, "o"), StopReason.SHUTDOWN),
        (lambda sim: sim.send_trigger(1, "reset"), StopReason.REBOOT),
        (lambda sim: sim.send_trigger(1, "power"), StopReason.SHUTDOWN),
        (lambda sim: sim.send_sysrq(1, "h"), None),
        (lambda sim: sim.send_trigger(1, "nmi"), None),
    ],
)
async def test_keys_and_triggers(
    bench: Bench, call: Callable[[SimHypervisor], Awaitable[None]], reason: StopReason | None
) -> None:
    await bench.sim.start(machine())
    await call(bench.sim)
    await bench.clock.advance(0)
    assert [event.reason for event in bench.events if isinstance(event, DomainStopped)] == ([reason] if reason else [])


async def test_unknown_triggers_and_keys_are_refused(bench: Bench) -> None:
    await bench.sim.start(machine())
    with pytest.raises(HypervisorError, match="explode"):
        await bench.sim.send_trigger(1, "explode")
    with pytest.raises(HypervisorError):
        await bench.sim.send_sysrq(1, "ctrl")


@pytest.mark.slow
async def test_ten_thousand_domains_are_cheap(bench: Bench) -> None:
    began = time.process_time()
    for domid in range(1, 10_001):
        await bench.sim.start(machine(domid, shutdown_after="100"))
    assert len(asyncio.all_tasks()) <= 4
    await bench.clock.advance(100)
    assert len(bench.events) == 10_000
    assert time.process_time() - began < 5
