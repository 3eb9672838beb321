"""What is measured of a virtual machine: the sources, and their readings in the same order. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from domzero.host.hypervisor.protocol import DiskCounters, DomainStatistics
from domzero.host.network.protocol import TrafficCounters
from domzero.toolstack.rrd.sources import (
    BYTES,
    BYTES_PER_SECOND,
    FRACTION,
    KIB,
    MIB_PER_SECOND,
    MICROSECONDS,
    REQUESTS,
    REQUESTS_PER_SECOND,
    Kind,
    Source,
)

MIB = 1 << 20
_KIB = re.compile("[0-9]{1,15}")
"""What an agent may say of an amount of memory."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A running machine at one moment. `at` is by the clock that only goes forward."""

    at: float
    domid: int
    statistics: DomainStatistics
    traffic: Mapping[int, TrafficCounters]
    drives: Mapping[int, str]
    """The guest's name of each drive, such as `xvda`, by slot; those that are not counted are left out."""
    memory_target: int
    memory_free: int | None = None
    """KiB that the guest says are free; None where it does not say."""


def memory_free(reported: Mapping[str, str]) -> int | None:
    """KiB free inside, from the `memory` of guest metrics; None where a guest says nothing that could be meant."""
    said = reported.get("free", "")
    return int(said) if _KIB.fullmatch(said) else None


def machine_sources(reading: Reading) -> tuple[Source, ...]:
    """The sources of a machine like that: the same object for machines that look alike."""
    disks = reading.statistics.disks
    drives = tuple((name, disks[slot].requests is not None) for slot, name in reading.drives.items())
    says_free = reading.memory_free is not None
    return _sources(len(reading.statistics.cpu_seconds), drives, tuple(reading.traffic), says_free)


@lru_cache(maxsize=1024)
def _sources(
    vcpus: int, drives: tuple[tuple[str, bool], ...], cards: tuple[int, ...], says_free: bool
) -> tuple[Source, ...]:
    found = [_processor(f"cpu{number}", f"Use of virtual processor {number}") for number in range(vcpus)]
    found += [
        _processor("cpu_usage", "Use of all virtual processors", standard=False),
        Source("memory", "Memory that the machine has now", BYTES),
        Source("memory_target", "Memory that the machine is meant to have", BYTES),
    ]
    if says_free:
        found.append(Source("memory_internal_free", "Memory that is free inside the machine, as its agent says", KIB))
    for card in cards:
        found += [
            Source(f"vif_{card}_rx", f"Bytes received by card {card}", BYTES_PER_SECOND, Kind.DERIVE),
            Source(f"vif_{card}_tx", f"Bytes sent by card {card}", BYTES_PER_SECOND, Kind.DERIVE),
        ]
    for name, counts_requests in drives:
        found += _drive_sources(name, counts_requests)
    return tuple(found)


def _processor(name: str, description: str, *, standard: bool = True) -> Source:
    return Source(name, description, FRACTION, Kind.DERIVE, maximum=1.0, standard=standard)


def _drive_sources(name: str, counts_requests: bool) -> list[Source]:
    head, drive = f"vbd_{name}", f"drive {name}"

    def spare(end: str, what: str, units: str, kind: Kind = Kind.DERIVE) -> Source:
        return Source(f"{head}_{end}", f"{what} {drive}", units, kind, standard=False)

    found = [
        Source(f"{head}_read", f"Bytes read from {drive}", BYTES_PER_SECOND, Kind.DERIVE),
        Source(f"{head}_write", f"Bytes written to {drive}", BYTES_PER_SECOND, Kind.DERIVE),
        spare("io_throughput_read", "Data read from", MIB_PER_SECOND),
        spare("io_throughput_write", "Data written to", MIB_PER_SECOND),
        spare("io_throughput_total", "Data moved from and to", MIB_PER_SECOND),
    ]
    if counts_requests:
        found += [
            spare("iops_read", "Reads finished by", REQUESTS_PER_SECOND),
            spare("iops_write", "Writes finished by", REQUESTS_PER_SECOND),
            spare("iops_total", "Requests finished by", REQUESTS_PER_SECOND),
            spare("avgqu_sz", "Requests under way, on average, at", REQUESTS),
            spare("read_latency", "Time that a read took from", MICROSECONDS, Kind.GAUGE),
            spare("write_latency", "Time that a write took to", MICROSECONDS, Kind.GAUGE),
        ]
    return found


def machine_readings(reading: Reading, before: Reading | None) -> list[float]:
    """The reading's values, in the order of `machine_sources`; latencies are of the time since the one before."""
    statistics = reading.statistics
    used = statistics.cpu_seconds
    values: list[float] = [*used, sum(used) / len(used) if used else 0.0]
    values += (statistics.memory_actual, reading.memory_target)
    if reading.memory_free is not None:
        values.append(reading.memory_free)
    for counted in reading.traffic.values():
        values += (counted.received_bytes, counted.sent_bytes)
    earlier = before.statistics.disks if before is not None and before.domid == reading.domid else {}
    for slot in reading.drives:
        values += _drive_readings(statistics.disks[slot], earlier.get(slot))
    return values


def _drive_readings(now: DiskCounters, before: DiskCounters | None) -> list[float]:
    read, written = now.read_bytes, now.written_bytes
    values: list[float] = [read, written, read / MIB, written / MIB, (read + written) / MIB]
    if now.requests is not None:
        counted = now.requests
        values += (counted.reads, counted.writes, counted.reads + counted.writes)
        values.append(counted.read_seconds + counted.write_seconds)
        values += latencies(now, before)
    return values


def latencies(now: DiskCounters, before: DiskCounters | None) -> tuple[float, float]:
    """Microseconds that a read and a write took on average between two moments; 0 where there was none."""
    if now.requests is None or before is None or before.requests is None:
        return 0.0, 0.0
    new, old = now.requests, before.requests
    reads, writes = new.reads - old.reads, new.writes - old.writes
    return (
        max(0.0, (new.read_seconds - old.read_seconds) * 1e6 / reads) if reads > 0 else 0.0,
        max(0.0, (new.write_seconds - old.write_seconds) * 1e6 / writes) if writes > 0 else 0.0,
    )
