"""Measures host, processors, machines, disks and cards again and again, for the archives and for the figures of rows.

Figures are `volatile` fields: they reach readers and events at once and the disk when something else is written. A
figure is written only when it moved, so a quiet host makes no events. They are what the archives know last, in the
fields' own units.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from domzero.engine.clock import moment, settled
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.metrics.protocol import Memory, ProcessorTimes, ProcessUsage, utilisation
from domzero.host.network.protocol import NetworkError, TrafficCounters
from domzero.idl.types import Ref
from domzero.toolstack.figures import state_fields, update_if_moved
from domzero.toolstack.network.interface_rates import InterfaceRates
from domzero.toolstack.rrd.alarms import Alarms
from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.columns import STEP
from domzero.toolstack.rrd.host_sources import (
    SHORT,
    HostReading,
    Throughput,
    control_domain_readings,
    control_domain_sources,
    host_readings,
    host_sources,
    own_memory,
)
from domzero.toolstack.rrd.host_sources import throughput_sources as of_repository
from domzero.toolstack.rrd.machine_sources import Reading, machine_readings, machine_sources, memory_free
from domzero.toolstack.rrd.owners import functions_for, owner_of
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.device_names import drive_name

log = logging.getLogger(__name__)

INTERVAL = float(STEP)
"""Seconds between two rounds, each of which begins when a step of the archives has just ended."""

PATIENCE = 2.0
"""Seconds that a hypervisor may take to tell of a machine before the others are measured without it."""

TOGETHER = 32
"""Machines that are measured at once; between two such groups others have their turn."""

MEMORY_STEP = 1 << 20
"""Changes of memory smaller than this many bytes are not worth an event."""


@dataclass(slots=True)
class Metrics:
    """The periodic measuring. `run` goes on until it is cancelled; `measure` is one round.

    A machine of which the hypervisor says nothing holds up one round for a moment, and is left out until it answers.
    """

    stack: Stack
    _processors: dict[int, ProcessorTimes] = field(default_factory=dict)
    _measuring: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _moved: dict[Ref, Throughput] = field(default_factory=dict)
    """By repository: what the machines moved that were measured in this round."""
    _interfaces: InterfaceRates = field(init=False)
    _alarms: Alarms = field(init=False)

    def __post_init__(self) -> None:
        self._interfaces = InterfaceRates(self.stack)
        self._alarms = Alarms(self.stack)

    async def run(self) -> None:
        """Measure for ever, every `INTERVAL` seconds."""
        archives = self.stack.archives
        try:
            while True:
                await self.measure()
                await self.stack.clock.sleep(INTERVAL - archives.now() % INTERVAL)
        finally:
            for task in list(self._measuring.values()):
                task.cancel()

    async def measure(self) -> None:
        """One round: every running machine, then the host."""
        database, archives = self.stack.database, self.stack.archives
        resident = database.get("host", self.stack.host, "resident_VMs")
        running = {domid: vm for vm in resident if (domid := database.get("VM", vm, "domid")) > 0}
        for gone in archives.readings.keys() - set(running.values()):
            del archives.readings[gone]
        self._moved = {}
        machines = iter(running.items())
        while group := dict(islice(machines, TOGETHER)):
            await self._measure_group(group)
        await self._interfaces.measure()
        await self._measure_host(running)
        await self._measure_repositories()
        await self._alarms.check()
        # What began to run meanwhile is not measured before the next round.
        machines_here = {owner_of(database, "VM", vm) for vm in resident if database.find("VM", vm) is not None}
        await archives.keep(lambda owner: owner.kind != "vm" or owner in machines_here)

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

    # --- machines

    async def _measure_machine(self, vm: Ref, domid: int) -> None:
        database, archives = self.stack.database, self.stack.archives
        try:
            statistics = await self.stack.hypervisor.statistics(domid)
            traffic = await self._traffic(vm, domid)
            owner = owner_of(database, "VM", vm)
            archive = await archives.open(owner, functions_for(database, self.stack.pool, "vm"))
            record = database.record("VM", vm)
        except (HypervisorError, ApiError) as error:
            # An ApiError: the machine was destroyed while the hypervisor told of it.
            log.debug("domain %d could not be measured: %s", domid, error)
            return
        if record["domid"] != domid:
            log.debug("domain %d ended while it was measured", domid)
            return
        counted = {slot: vbd for slot, vbd in self._drives(record).items() if slot in statistics.disks}
        names = {slot: database.get("VBD", vbd, "device") or drive_name(slot) for slot, vbd in counted.items()}
        reading = Reading(
            self.stack.clock.monotonic(), domid, statistics, traffic, names, record["memory_target"],
            self._free_inside(record),
        )  # fmt: skip
        before = archives.readings.get(vm)
        if before is not None and before.domid != domid:
            before = None
        if before is None:
            archive.interrupt()
        archives.readings[vm] = reading
        archive.add(archives.now(), machine_sources(reading), machine_readings(reading, before))
        if before is not None and reading.at > before.at:
            self._count_repositories(counted, before, reading)
            with database.transaction(observed=True) as transaction:
                self._write_machine(transaction, record, counted, reading, archive)

    def _free_inside(self, record: Mapping[str, Any]) -> int | None:
        """KiB that the machine's agent says are free, None where none has lately."""
        row = self.stack.database.find("VM_guest_metrics", record["guest_metrics"])
        return memory_free(row.record["memory"]) if row is not None and row.record["live"] else None

    def _drives(self, record: Mapping[str, Any]) -> dict[int, Ref]:
        """The drives of a machine by slot."""
        found = {}
        for vbd in record["VBDs"]:
            position = self.stack.database.get("VBD", vbd, "userdevice")
            if position.isdigit():
                found[int(position)] = vbd
        return found

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

    def _count_repositories(self, drives: Mapping[int, Ref], before: Reading, after: Reading) -> None:
        database, seconds = self.stack.database, after.at - before.at
        for slot, vbd in drives.items():
            then = before.statistics.disks.get(slot)
            vdi = database.find("VDI", database.get("VBD", vbd, "VDI"))
            if then is not None and vdi is not None:
                moved = self._moved.setdefault(vdi.record["SR"], Throughput())
                moved.add(then, after.statistics.disks[slot], seconds)

    def _write_machine(
        self, transaction: Transaction, record: Mapping[str, Any], drives: Mapping[int, Ref], reading: Reading,
        archive: Archive,
    ) -> None:  # fmt: skip
        database = self.stack.database
        figures = machine_figures(archive, reading, record["power_state"])
        update_if_moved(self.stack, transaction, "VM_metrics", record["metrics"], figures)
        for slot, vbd in drives.items():
            rates = rate_figures(archive, f"vbd_{reading.drives[slot]}_read", f"vbd_{reading.drives[slot]}_write")
            update_if_moved(self.stack, transaction, "VBD_metrics", database.get("VBD", vbd, "metrics"), rates)
        for vif in record["VIFs"]:
            slot = database.get("VIF", vif, "device")
            if int(slot) in reading.traffic:
                rates = rate_figures(archive, f"vif_{slot}_rx", f"vif_{slot}_tx")
                metrics = database.get("VIF", vif, "metrics")
                update_if_moved(self.stack, transaction, "VIF_metrics", metrics, rates)

    # --- the host and its repositories

    async def _measure_host(self, running: Mapping[int, Ref]) -> None:
        try:
            memory, times, load, usage = await asyncio.to_thread(self._look_at_host)
        except OSError as error:
            # Such as: no descriptor is left. There will be one in the next round.
            log.warning("the host could not be measured: %s", error)
            return
        busy = {
            number: utilisation(self._processors[number], now) if number in self._processors else math.nan
            for number, now in times.items()
        }
        self._processors = times
        self._write_host(memory, busy)
        database, archives = self.stack.database, self.stack.archives
        moved = {
            row.record["uuid"][:SHORT]: moved
            for sr, moved in self._moved.items()
            if (row := database.find("SR", sr)) is not None
        }
        readings = archives.readings.values()
        reading = HostReading(
            busy, memory, load, usage, self._interfaces.latest, len(database.rows("session")),
            len(database.rows("task")), len(running), sum(len(it.statistics.cpu_seconds) for it in readings), moved,
        )  # fmt: skip
        owner = owner_of(database, "host", self.stack.host)
        archive = await archives.open(owner, functions_for(database, self.stack.pool, "host"))
        archive.add(archives.now(), host_sources(reading), host_readings(reading))
        control_domain = database.get("host", self.stack.host, "control_domain")
        if database.find("VM", control_domain) is not None:
            owner = owner_of(database, "VM", control_domain)
            archive = await archives.open(owner, functions_for(database, self.stack.pool, "vm"))
            given = sum(it.statistics.memory_actual for it in readings)
            sources = control_domain_sources(tuple(reading.processors))
            archive.add(archives.now(), sources, control_domain_readings(reading, given))
            self._write_control_domain(control_domain, reading, given)

    def _look_at_host(self) -> tuple[Memory, dict[int, ProcessorTimes], float, ProcessUsage]:
        facts = self.stack.facts
        return facts.memory(), dict(facts.processor_times()), facts.load_average(), facts.own_usage()

    def _write_host(self, memory: Memory, busy: Mapping[int, float]) -> None:
        database = self.stack.database
        with database.transaction(observed=True) as transaction:
            metrics = database.get("host", self.stack.host, "metrics")
            if abs(database.get("host_metrics", metrics, "memory_free") - memory.free) >= MEMORY_STEP:
                now = moment(self.stack.clock.now())
                transaction.update("host_metrics", metrics, memory_free=memory.free, last_updated=now)
            for ref, row in database.rows("host_cpu").items():
                used = busy.get(row.record["number"], math.nan)
                if not math.isnan(used):
                    transaction.update("host_cpu", ref, utilisation=round(used, 2))

    def _write_control_domain(self, vm: Ref, reading: HostReading, given: int) -> None:
        database = self.stack.database
        metrics = database.get("VM", vm, "metrics")
        used = {number: round(busy, 2) for number, busy in reading.processors.items() if not math.isnan(busy)}
        figures: dict[str, Any] = {"VCPUs_number": len(reading.processors), "VCPUs_utilisation": used}
        memory = own_memory(reading, given)
        if abs(database.get("VM_metrics", metrics, "memory_actual") - memory) >= MEMORY_STEP:
            figures["memory_actual"] = memory
        with database.transaction(observed=True) as transaction:
            update_if_moved(self.stack, transaction, "VM_metrics", metrics, figures)

    async def _measure_repositories(self) -> None:
        database, archives = self.stack.database, self.stack.archives
        for sr, moved in self._moved.items():
            try:
                owner = owner_of(database, "SR", sr)
            except ApiError:
                log.debug("repository %s is gone", sr)
                continue
            archive = await archives.open(owner, functions_for(database, self.stack.pool, "sr"))
            archive.add(archives.now(), of_repository(moved.counts_requests), moved.readings())


def machine_figures(archive: Archive, reading: Reading, power_state: str) -> dict[str, Any]:
    """VM_metrics fields: memory in bytes, processors in use as fractions where they are known."""
    processors = len(reading.statistics.cpu_seconds)
    used = {number: archive.value(f"cpu{number}") for number in range(processors)}
    figures: dict[str, Any] = {
        "memory_actual": reading.statistics.memory_actual,
        "VCPUs_CPU": dict(enumerate(reading.statistics.cpu_numbers)),
        **state_fields(processors, power_state),
    }
    if any(value != value for value in used.values()):
        return figures
    return {**figures, "VCPUs_utilisation": {number: round(value, 2) for number, value in used.items()}}


def rate_figures(archive: Archive, read: str, written: str) -> dict[str, float]:
    """The fields of VBD_metrics and VIF_metrics, KiB per second, from two sources; nothing of what is not known."""
    figures = {"io_read_kbs": archive.value(read) / 1024, "io_write_kbs": archive.value(written) / 1024}
    return {name: round(value, 3) for name, value in figures.items() if value == value}
