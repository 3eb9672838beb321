"""How long after a change its subscribers know, and what it costs that they wait."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from bench.hosts import Host, host, new_machine
from bench.processes import output, process, processor_seconds, resident_bytes
from bench.report import Row, Section, Target, spread

NOTES = """From the call that changes a machine, sent on its own connection, to the arrival of the event with that
change at each subscriber (`event.from` for VMs on the Unix socket): more than commit to client, as the call's own way
in and its commit are part of it. All subscribers are one process on the other processor. An idle subscriber waits in
`event.from` while nothing changes."""

LIMITS = {1: 0.010, 200: 0.050}
WITHIN = Target(most=1.0)
IDLE = 200


def measure(quick: bool) -> Section:
    """Latency with one and with many subscribers; the cost of idle ones."""
    section = Section("Events", NOTES)
    changes = 50 if quick else 500
    with tempfile.TemporaryDirectory() as name, host(Path(name)) as ours:
        api = ours.api()
        new_machine(api, "watched")
        for count, limit in LIMITS.items():
            seconds = json.loads(output("bench.subscribers", ours.socket, str(count), str(changes)))
            found = spread(seconds)
            what = f"99th percentile from call to event, {count} subscriber{'s' * (count > 1)}, part of the limit"
            said = f"{found.p99 * 1e3:.2f} ms; {found.text('ms', 1e3)}"
            section.add(Row(what, found.p99 / limit, said, f"limit {limit * 1e3:g} ms", WITHIN))
        _idle(section, ours, 2.0 if quick else 10.0)
    return section


def _idle(section: Section, ours: Host, seconds: float) -> None:
    alone = _used(ours, seconds)
    memory = resident_bytes(ours.pid)
    with process([sys.executable, "-m", "bench.subscribers", ours.socket, str(IDLE), "0"]) as subscribers:
        assert subscribers.stdout is not None
        subscribers.stdout.readline()
        time.sleep(0.5)
        memory = resident_bytes(ours.pid) - memory
        beside = _used(ours, seconds)
    each = (beside - alone) / IDLE
    what = f"processor time of a host with {IDLE} idle subscribers, to one with none"
    ours_text = f"{beside:.3%} of a core, {each * 1e6:.1f} µs a second and {memory / IDLE / 1e3:.1f} kB each"
    section.add(Row(what, beside / alone, ours_text, f"{alone:.3%} of a core"))


def _used(ours: Host, seconds: float) -> float:
    """The part of a processor that the host uses for some time."""
    before = processor_seconds(ours.pid)
    time.sleep(seconds)
    return (processor_seconds(ours.pid) - before) / seconds
