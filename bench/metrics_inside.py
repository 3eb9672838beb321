"""What history costs by itself: `python -m bench.metrics_inside MACHINES TICKS`.

Makes readings of that many machines as the hypervisor tells them, and adds them to their archives, tick by tick. Prints
a JSON object: `ticks`, the seconds of each, `bytes`, the memory that a machine's archive takes, and `updates`, the
seconds for making answers to clients, by what they ask for.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from uuid import UUID

from bench.processes import resident_bytes
from domzero.host.hypervisor.protocol import DiskCounters, DomainStatistics, RequestCounters
from domzero.host.network.protocol import TrafficCounters
from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.columns import STEP
from domzero.toolstack.rrd.document import xport_json, xport_xml
from domzero.toolstack.rrd.export import Owner, tabulate
from domzero.toolstack.rrd.machine_sources import Reading, machine_readings, machine_sources

BEGIN = 1_700_000_000.0
ROUNDS = 10
LATE = 0.013
"""Seconds by which every reading comes after its step."""


def reading(tick: int, number: int) -> Reading:
    """A machine with two processors, a disk and a card, which does something of everything."""
    moved = tick * (number + 1) * 4096
    counted = RequestCounters(tick * 20, tick * 30, tick * 0.01, tick * 0.02)
    return Reading(
        tick * STEP,
        number + 1,
        DomainStatistics((tick * 2.5, tick * 1.5), 1 << 30, {0: DiskCounters(moved, 2 * moved, counted)}),
        {0: TrafficCounters(moved, 3 * moved)},
        {0: "xvda"},
        1 << 30,
    )


def main() -> None:
    """See the module."""
    machines, ticks = int(sys.argv[1]), int(sys.argv[2])
    before: list[Reading | None] = [reading(0, number) for number in range(machines)]
    gc.collect()
    empty = resident_bytes(os.getpid())
    archives = [Archive() for _ in range(machines)]
    seconds = []
    for tick in range(1, ticks + 1):
        readings = [reading(tick, number) for number in range(machines)]
        now = BEGIN + tick * STEP + LATE
        begin = time.perf_counter()
        for archive, one, last in zip(archives, readings, before, strict=True):
            archive.add(now, machine_sources(one), machine_readings(one, last))
        seconds.append(time.perf_counter() - begin)
        before = list(readings)
    taken = (resident_bytes(os.getpid()) - empty) / machines
    # The first tick makes the columns.
    print(json.dumps({"ticks": seconds[1:], "bytes": taken, "updates": updates(archives, now)}))


def updates(archives: list[Archive], now: float) -> dict[str, list[float]]:
    """Seconds for putting together what all machines did lately, and for writing it down."""
    owners = [(Owner("vm", str(UUID(int=number))), archive) for number, archive in enumerate(archives)]
    found: dict[str, list[float]] = {}
    for back in (2 * STEP, 60):
        for form, write in (("XML", xport_xml), ("JSON", xport_json)):
            taken = found.setdefault(f"{back} s as {form}", [])
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                for _piece in write(tabulate(owners, now, now - back, function="AVERAGE")):
                    pass
                taken.append(time.perf_counter() - begin)
    return found


if __name__ == "__main__":
    main()
