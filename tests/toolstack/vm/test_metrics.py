"""Machines are measured whatever becomes of some of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import DomainStatistics
from domzero.host.hypervisor.sim.driver import SimHypervisor
from domzero.idl.types import Ref
from domzero.toolstack.metrics import PATIENCE, Metrics
from tests.toolstack.vm.world import World, world


class HangingHypervisor(SimHypervisor):
    """Says nothing of one domain until it is told to, as a process does whose storage hangs."""

    hanging = 0

    def hang(self, domid: int) -> None:
        self.hanging, self.go_on = domid, asyncio.Event()

    async def statistics(self, domid: int) -> DomainStatistics:
        if domid == self.hanging:
            await self.go_on.wait()
        return await super().statistics(domid)


@pytest.fixture
async def hanging_host(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, hypervisors=HangingHypervisor) as running:
        yield running


def hanging(host: World) -> HangingHypervisor:
    assert isinstance(host.hypervisor, HangingHypervisor)
    return host.hypervisor


async def started(host: World) -> Ref:
    vm = await host.machine(disks=1, cards=1, other_config={"mac_seed": "s", "sim:cpu-load": "0.5"})
    await host.call("VM.start", vm, False, False)
    return vm


def load(host: World, vm: Ref) -> dict[int, float]:
    return dict(host.get("VM_metrics", host.get("VM", vm, "metrics"), "VCPUs_utilisation"))


async def test_figures_follow_the_machines(host: World) -> None:
    vm = await started(host)
    metrics = Metrics(host.stack)
    await metrics.measure()
    await host.clock.advance(10)
    await metrics.measure()
    assert load(host, vm) == {0: 0.5}


class ProcessorHypervisor(SimHypervisor):
    """Tells of the host's processors, as one does whose virtual ones really run."""

    async def statistics(self, domid: int) -> DomainStatistics:
        found = await super().statistics(domid)
        return replace(found, cpu_numbers=tuple(5 - number for number in range(len(found.cpu_seconds))))


async def test_what_a_machines_processors_do(tmp_path: Path) -> None:
    async with world(tmp_path, hypervisors=ProcessorHypervisor) as host:
        vm = await host.machine(disks=0, cards=0, VCPUs_max=3, VCPUs_at_startup=2)

        def figures() -> tuple[object, ...]:
            row = host.row("VM_metrics", host.get("VM", vm, "metrics"))
            return row["state"], row["VCPUs_number"], row["VCPUs_flags"], row["VCPUs_CPU"]

        await host.call("VM.start", vm, False, False)
        two = {0: ("online",), 1: ("online",)}
        assert figures() == (("running",), 2, two, {})
        metrics = Metrics(host.stack)
        await metrics.measure()
        await host.call("VM.set_VCPUs_number_live", vm, "3")
        await host.call("VM.pause", vm)
        await host.clock.advance(5)
        await metrics.measure()
        assert figures() == (("paused",), 3, {**two, 2: ("online",)}, {0: 5, 1: 4, 2: 3})
        await host.call("VM.hard_shutdown", vm)
        assert figures() == ((), 0, {}, {})


async def test_a_machine_that_hangs_does_not_hold_up_the_others(hanging_host: World) -> None:
    host, hypervisor = hanging_host, hanging(hanging_host)
    silent, other = await started(host), await started(host)
    hypervisor.hang(host.get("VM", silent, "domid"))
    metrics = Metrics(host.stack)
    await host.over(metrics.measure(), PATIENCE + 1)
    await host.clock.advance(10)
    await metrics.measure()
    assert (load(host, silent), load(host, other)) == ({}, {0: 0.5})
    hypervisor.go_on.set()
    await host.settle()
    await host.clock.advance(10)
    await metrics.measure()
    assert load(host, silent) == {0: 0.5}


async def test_a_machine_destroyed_while_it_is_measured(hanging_host: World) -> None:
    host, hypervisor = hanging_host, hanging(hanging_host)
    vm = await started(host)
    hypervisor.hang(host.get("VM", vm, "domid"))
    measuring = asyncio.ensure_future(Metrics(host.stack).measure())
    await host.settle()
    with host.stack.database.transaction() as transaction:
        transaction.destroy("VM", vm)
    hypervisor.go_on.set()
    await host.over(measuring, 1)


async def measured(host: World) -> tuple[Metrics, Ref]:
    """A machine whose figures are known, after two rounds."""
    vm, metrics = await started(host), Metrics(host.stack)
    await metrics.measure()
    await host.clock.advance(10)
    await metrics.measure()
    return metrics, vm


def device_rates(host: World, cls: str, device: Ref) -> tuple[float, float]:
    figures = host.row(f"{cls}_metrics", host.get(cls, device, "metrics"))
    return figures["io_read_kbs"], figures["io_write_kbs"]


@pytest.mark.parametrize("message", ["VM.hard_shutdown", "VM.suspend"])
async def test_a_machine_without_a_domain_uses_nothing(host: World, message: str) -> None:
    _, vm = await measured(host)
    (vbd,), (vif,) = host.get("VM", vm, "VBDs"), host.get("VM", vm, "VIFs")
    assert min(*device_rates(host, "VBD", vbd), *device_rates(host, "VIF", vif)) > 0
    await host.call(message, vm)
    figures = host.row("VM_metrics", host.get("VM", vm, "metrics"))
    assert (figures["memory_actual"], figures["VCPUs_number"], figures["VCPUs_utilisation"]) == (0, 0, {})
    assert {device_rates(host, "VBD", vbd), device_rates(host, "VIF", vif)} == {(0.0, 0.0)}


async def test_nothing_passes_through_devices_that_are_out(host: World) -> None:
    _, vm = await measured(host)
    (vbd,), (vif,) = host.get("VM", vm, "VBDs"), host.get("VM", vm, "VIFs")
    await host.call("VBD.unplug", vbd)
    await host.call("VIF.unplug", vif)
    assert {device_rates(host, "VBD", vbd), device_rates(host, "VIF", vif)} == {(0.0, 0.0)}


async def test_a_machine_that_ends_while_it_is_measured_stays_at_rest(hanging_host: World) -> None:
    host, hypervisor = hanging_host, hanging(hanging_host)
    metrics, vm = await measured(host)
    hypervisor.hang(host.get("VM", vm, "domid"))
    await host.clock.advance(10)
    measuring = asyncio.ensure_future(metrics.measure())
    await host.settle()
    domid = host.get("VM", vm, "domid")
    host.change("VM", vm, domid=-1)
    host.change("VM_metrics", host.get("VM", vm, "metrics"), VCPUs_utilisation={})
    hypervisor.go_on.set()
    await host.over(measuring, 1)
    assert load(host, vm) == {}
    host.change("VM", vm, domid=domid)


async def test_the_control_domain_is_measured_too(host: World) -> None:
    vm = host.get("host", host.stack.host, "control_domain")
    metrics = Metrics(host.stack)
    await metrics.measure()
    await host.clock.advance(10)
    await metrics.measure()
    figures = host.row("VM_metrics", host.get("VM", vm, "metrics"))
    total = host.get("host_metrics", host.get("host", host.stack.host, "metrics"), "memory_total")
    assert 0 < figures["memory_actual"] < total
    assert figures["VCPUs_number"] == len(host.get("host", host.stack.host, "host_CPUs"))
