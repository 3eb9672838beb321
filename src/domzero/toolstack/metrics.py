"""Keeps the measured figures fresh: host, processors, machines, disks, cards.

Figures are `volatile` fields: they reach readers and events at once and the disk when something else is written. A
figure is written only when it moved, so a quiet host makes no events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from domzero.engine.clock import moment, settled
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.host.hypervisor.protocol import DomainStatistics, HypervisorError
from domzero.host.metrics.protocol import ProcessorTimes, utilisation
from domzero.host.network.protocol import NetworkError, TrafficCounters
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.interface_rates import InterfaceRates
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two rounds."""

PATIENCE = 2.0
"""Seconds that a hypervisor may take to tell of a machine before the others are measured without it."""

TOGETHER = 32
"""Machines that are measured at once; between two such groups others have their turn."""

MEMORY_STEP = 1 << 20
"""Changes of memory smaller than this many bytes are not worth an event."""


@dataclass(slots=True)
class _Reading:
    """The counters of a running machine at one moment."""

    at: float
    statistics: DomainStatistics
    traffic: dict[int, TrafficCounters]


@dataclass(slots=True)
class Metrics:
    """The periodic measuring. `run` goes on until it is cancelled; `measure` is one round.

    A machine of which the hypervisor says nothing holds up one round for a moment, and is left out until it answers.
    """

    stack: Stack
    _processors: dict[int, ProcessorTimes] = field(default_factory=dict)
    _machines: dict[int, _Reading] = field(default_factory=dict)
    _measuring: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _interfaces: InterfaceRates = field(init=False)

    def __post_init__(self) -> None:
        self._interfaces = InterfaceRates(self.stack)

    async def run(self) -> None:
        """Measure for ever, every `INTERVAL` seconds."""
        try:
            while True:
                await self.measure()
                await self.stack.clock.sleep(INTERVAL)
        finally:
            for task in list(self._measuring.values()):
                task.cancel()

    async def measure(self) -> None:
        """One round: the host, then every running machine."""
        await self._measure_host()
        await self._interfaces.measure()
        database = self.stack.database
        resident = database.get("host", self.stack.host, "resident_VMs")
        running = {domid: vm for vm in resident if (domid := database.get("VM", vm, "domid")) > 0}
        for gone in self._machines.keys() - running.keys():
            del self._machines[gone]
        machines = iter(running.items())
        while group := dict(islice(machines, TOGETHER)):
            await self._measure_group(group)

    async def _measure_group(self, group: Mapping[int, Ref]) -> None:
        begun = [self._begin(vm, domid) for domid, vm in group.items() if domid not in self._measuring]
        if begun:
            await settled(self.stack.clock, asyncio.ensure_future(asyncio.wait(begun)), PATIENCE)

    def _begin(self, vm: Ref, domid: int) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._measure_machine(vm, domid))
        self._measuring[domid] = task
        task.add_done_callback(partial(self._measured, domid))
        return task

    def _measured(self, domid: int, task: asyncio.Task[None]) -> None:
        del self._measuring[domid]
        if not task.cancelled() and task.exception() is not None:
            log.error("measuring domain %d failed in a way that it should not", domid, exc_info=task.exception())

    async def _measure_host(self) -> None:
        memory = await asyncio.to_thread(self.stack.facts.memory)
        times = dict(await asyncio.to_thread(self.stack.facts.processor_times))
        database = self.stack.database
        now = moment(self.stack.clock.now())
        with database.transaction(observed=True) as transaction:
            metrics = database.get("host", self.stack.host, "metrics")
            if abs(database.get("host_metrics", metrics, "memory_free") - memory.free) >= MEMORY_STEP:
                transaction.update("host_metrics", metrics, memory_free=memory.free, last_updated=now)
            for ref, row in database.rows("host_cpu").items():
                number = row.record["number"]
                if number in self._processors and number in times:
                    busy = round(utilisation(self._processors[number], times[number]), 2)
                    transaction.update("host_cpu", ref, utilisation=busy)
        self._processors = times

    async def _measure_machine(self, vm: Ref, domid: int) -> None:
        try:
            statistics = await self.stack.hypervisor.statistics(domid)
            traffic = await self._traffic(vm, domid)
        except (HypervisorError, ApiError) as error:
            # An ApiError: the machine was destroyed while the hypervisor told of it.
            log.debug("domain %d could not be measured: %s", domid, error)
            return
        reading = _Reading(self.stack.clock.monotonic(), statistics, traffic)
        before = self._machines.get(domid)
        self._machines[domid] = reading
        if before is not None and reading.at > before.at and self.stack.database.find("VM", vm) is not None:
            with self.stack.database.transaction(observed=True) as transaction:
                self._write_machine(transaction, vm, before, reading)

    async def _traffic(self, vm: Ref, domid: int) -> dict[int, TrafficCounters]:
        database = self.stack.database
        slots = [
            int(database.get("VIF", vif, "device"))
            for vif in database.get("VM", vm, "VIFs")
            if database.get("VIF", vif, "currently_attached")
        ]
        traffic = {}
        for slot in slots:
            try:
                traffic[slot] = await self.stack.network.counters(domid, slot)
            except NetworkError as error:
                # User-mode networking counts nothing; the rest of the machine's figures are still worth having.
                log.debug("card %d of domain %d is not counted: %s", slot, domid, error)
        return traffic

    def _write_machine(self, transaction: Transaction, vm: Ref, before: _Reading, after: _Reading) -> None:
        database = self.stack.database
        now = moment(self.stack.clock.now())
        record = database.record("VM", vm)
        _update_if_moved(self.stack, transaction, "VM_metrics", record["metrics"], machine_figures(before, after), now)
        for vbd in record["VBDs"]:
            figures = disk_figures(before, after, database.get("VBD", vbd, "userdevice"))
            _update_if_moved(self.stack, transaction, "VBD_metrics", database.get("VBD", vbd, "metrics"), figures, now)
        for vif in record["VIFs"]:
            figures = card_figures(before, after, int(database.get("VIF", vif, "device")))
            _update_if_moved(self.stack, transaction, "VIF_metrics", database.get("VIF", vif, "metrics"), figures, now)


def machine_figures(before: _Reading, after: _Reading) -> dict[str, Any]:
    """VM_metrics fields from two readings: memory in bytes, processors in use as fractions."""
    seconds = after.at - before.at
    used = zip(before.statistics.cpu_seconds, after.statistics.cpu_seconds, strict=False)
    return {
        "memory_actual": after.statistics.memory_actual,
        "VCPUs_number": len(after.statistics.cpu_seconds),
        "VCPUs_utilisation": {
            number: round(min(1.0, max(0.0, (now - then) / seconds)), 2) for number, (then, now) in enumerate(used)
        },
    }


def disk_figures(before: _Reading, after: _Reading, userdevice: str) -> dict[str, Any]:
    """VBD_metrics fields from two readings: KiB per second; nothing for a disk that was not there both times."""
    slot = int(userdevice) if userdevice.isdigit() else -1
    then, now = before.statistics.disks.get(slot), after.statistics.disks.get(slot)
    if then is None or now is None:
        return {}
    seconds = after.at - before.at
    return {
        "io_read_kbs": rate(then.read_bytes, now.read_bytes, seconds),
        "io_write_kbs": rate(then.written_bytes, now.written_bytes, seconds),
    }


def card_figures(before: _Reading, after: _Reading, slot: int) -> dict[str, Any]:
    """VIF_metrics fields from two readings: KiB per second, read being what the guest received."""
    then, now = before.traffic.get(slot), after.traffic.get(slot)
    if then is None or now is None:
        return {}
    seconds = after.at - before.at
    return {
        "io_read_kbs": rate(then.received_bytes, now.received_bytes, seconds),
        "io_write_kbs": rate(then.sent_bytes, now.sent_bytes, seconds),
    }


def rate(before: int, after: int, seconds: float) -> float:
    """KiB per second between two counters; a counter that went back (a new device) counts as none."""
    return round(max(0, after - before) / 1024 / seconds, 3)


def _update_if_moved(
    stack: Stack, transaction: Transaction, cls: str, ref: Ref, figures: dict[str, Any], now: str
) -> None:
    if ref == NULL_REF or not figures:
        return
    try:
        record = stack.database.record(cls, ref)
    except ApiError:
        log.debug("%s %s is gone", cls, ref)
        return
    if any(record[name] != value for name, value in figures.items()):
        transaction.update(cls, ref, last_updated=now, **figures)
