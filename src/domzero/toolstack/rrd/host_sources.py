"""What is measured of the host and of its repositories: the sources, and their readings in the same order. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from domzero.host.hypervisor.protocol import DiskCounters
from domzero.host.metrics.protocol import Memory, ProcessUsage
from domzero.toolstack.network.interface_rates import InterfaceRate
from domzero.toolstack.rrd.sources import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    FRACTION,
    KIB,
    MIB_PER_SECOND,
    MICROSECONDS,
    REQUESTS,
    REQUESTS_PER_SECOND,
    UNKNOWN,
    Source,
)

MIB = 1 << 20
SHORT = 8
"""Characters of a repository's uuid that stand for it in a source's name."""


@dataclass(slots=True)
class Throughput:
    """What moved from and to one repository between two readings, added up over machines; rates are per second."""

    read: float = 0.0
    written: float = 0.0
    counts_requests: bool = False
    reads: float = 0.0
    writes: float = 0.0
    read_seconds: float = 0.0
    write_seconds: float = 0.0

    def add(self, before: DiskCounters, now: DiskCounters, seconds: float) -> None:
        """One drive. A drive whose counters began anew counts for nothing."""
        if now.read_bytes < before.read_bytes or now.written_bytes < before.written_bytes:
            return
        self.read += (now.read_bytes - before.read_bytes) / seconds
        self.written += (now.written_bytes - before.written_bytes) / seconds
        new, old = now.requests, before.requests
        if new is not None and old is not None:
            self.counts_requests = True
            self.reads += (new.reads - old.reads) / seconds
            self.writes += (new.writes - old.writes) / seconds
            self.read_seconds += (new.read_seconds - old.read_seconds) / seconds
            self.write_seconds += (new.write_seconds - old.write_seconds) / seconds

    def readings(self) -> tuple[float, ...]:
        """In the order of `throughput_sources`."""
        moved = (self.read / MIB, self.written / MIB, (self.read + self.written) / MIB)
        if not self.counts_requests:
            return moved
        return (
            *moved,
            self.reads,
            self.writes,
            self.reads + self.writes,
            self.read_seconds + self.write_seconds,
            self.read_seconds * 1e6 / self.reads if self.reads > 0 else 0.0,
            self.write_seconds * 1e6 / self.writes if self.writes > 0 else 0.0,
        )


@lru_cache(maxsize=1024)
def throughput_sources(counts_requests: bool, repository: str = "") -> tuple[Source, ...]:
    """Of a repository, or of the host with the repository's short uuid in the names."""
    end, which = (f"_{repository}", f"repository {repository}") if repository else ("", "the repository")
    found = [
        Source(f"io_throughput_read{end}", f"Data read from {which}", MIB_PER_SECOND),
        Source(f"io_throughput_write{end}", f"Data written to {which}", MIB_PER_SECOND),
        Source(f"io_throughput_total{end}", f"Data moved from and to {which}", MIB_PER_SECOND),
    ]
    if counts_requests:
        found += [
            Source(f"iops_read{end}", f"Reads finished by {which}", REQUESTS_PER_SECOND),
            Source(f"iops_write{end}", f"Writes finished by {which}", REQUESTS_PER_SECOND),
            Source(f"iops_total{end}", f"Requests finished by {which}", REQUESTS_PER_SECOND),
            Source(f"avgqu_sz{end}", f"Requests under way, on average, at {which}", REQUESTS),
            Source(f"read_latency{end}", f"Time that a read took from {which}", MICROSECONDS),
            Source(f"write_latency{end}", f"Time that a write took to {which}", MICROSECONDS),
        ]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class HostReading:
    """The host at one moment."""

    processors: Mapping[int, float]
    """The busy fraction of each, NaN where it is not known yet."""
    memory: Memory
    load: float
    usage: ProcessUsage
    interfaces: Mapping[str, InterfaceRate]
    sessions: int
    tasks: int
    domains: int
    vcpus: int
    repositories: Mapping[str, Throughput] = field(default_factory=dict)
    """By short uuid."""


def host_sources(reading: HostReading) -> tuple[Source, ...]:
    """The sources of a host like that: the same object as long as it looks the same."""
    repositories = tuple((name, moved.counts_requests) for name, moved in reading.repositories.items())
    return _sources(tuple(reading.processors), tuple(reading.interfaces), repositories)


@lru_cache(maxsize=16)
def _sources(
    processors: tuple[int, ...], interfaces: tuple[str, ...], repositories: tuple[tuple[str, bool], ...]
) -> tuple[Source, ...]:
    found = [Source(f"cpu{number}", f"Use of processor {number}", FRACTION, maximum=1.0) for number in processors]
    found += [
        Source("cpu_avg", "Use of all processors", FRACTION, maximum=1.0),
        Source("loadavg", "Tasks that run or want to, over a minute", COUNT),
        Source("memory_total_kib", "Memory of the host", KIB),
        Source("memory_free_kib", "Memory that new machines could have", KIB),
        Source("xapi_memory_usage_kib", "Memory that the toolstack takes", KIB),
        Source("xapi_open_fds", "Files that the toolstack has open", COUNT, standard=False),
        Source("pool_session_count", "Sessions", "sessions"),
        Source("pool_task_count", "Tasks", "tasks"),
        Source("running_domains", "Machines that run", COUNT, standard=False),
        Source("running_vcpus", "Virtual processors of the machines that run", COUNT, standard=False),
        Source("pif_aggr_rx", "Bytes received by all interfaces", BYTES_PER_SECOND),
        Source("pif_aggr_tx", "Bytes sent by all interfaces", BYTES_PER_SECOND),
    ]
    for name in interfaces:
        found += [
            Source(f"pif_{name}_rx", f"Bytes received by {name}", BYTES_PER_SECOND),
            Source(f"pif_{name}_tx", f"Bytes sent by {name}", BYTES_PER_SECOND),
        ]
    for name, counts_requests in repositories:
        found += throughput_sources(counts_requests, name)
    return tuple(found)


@lru_cache(maxsize=16)
def control_domain_sources(processors: tuple[int, ...]) -> tuple[Source, ...]:
    """Of the control domain, which is the host itself seen as a machine."""
    return (
        *(Source(f"cpu{number}", f"Use of processor {number}", FRACTION, maximum=1.0) for number in processors),
        Source("cpu_usage", "Use of all processors", FRACTION, maximum=1.0, standard=False),
        Source("memory", "Memory in use that no machine has", BYTES),
        Source("memory_target", "Memory of the host", BYTES),
    )


def control_domain_readings(reading: HostReading, given: int) -> list[float]:
    """In the order of `control_domain_sources`; `given` are the bytes that machines have."""
    busy = list(reading.processors.values())
    return [*busy, sum(busy) / len(busy) if busy else UNKNOWN, own_memory(reading, given), reading.memory.total]


def own_memory(reading: HostReading, given: int) -> int:
    """Bytes of memory in use on the host beside the `given` ones that machines have."""
    return max(0, reading.memory.total - reading.memory.free - given)


def host_readings(reading: HostReading) -> list[float]:
    """The reading's values, in the order of `host_sources`."""
    busy = list(reading.processors.values())
    rates = list(reading.interfaces.values())
    physical = [rate for rate in rates if rate.physical]
    values = [
        *busy,
        sum(busy) / len(busy) if busy else UNKNOWN,
        reading.load,
        reading.memory.total / 1024,
        reading.memory.free / 1024,
        reading.usage.resident / 1024,
        reading.usage.open_files,
        reading.sessions,
        reading.tasks,
        reading.domains,
        reading.vcpus,
        sum(rate.received for rate in physical) if physical else UNKNOWN,
        sum(rate.sent for rate in physical) if physical else UNKNOWN,
    ]
    for rate in rates:
        values += (rate.received, rate.sent)
    for moved in reading.repositories.values():
        values += moved.readings()
    return values
