"""History: what a tick costs, how soon an update is there, how much memory a machine's archive takes."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from pathlib import Path

from bench.client import Api, RefusedError
from bench.hosts import Host, host, new_machine
from bench.processes import output, processor_seconds
from bench.report import Row, Section, Target, spread

NOTES = """A tick is one reading of every machine, each with two processors, a disk and a card, added to the archives;
every 12th finishes a minute. It is timed by itself, in a process of its own; the ratio is the 90th percentile in
seconds. Making an update is timed there too: from the archives to the last piece of text. The whole round of a
simulated host (asking for the counters, archives, figures of rows, events) is its processor time over some rounds less
that of a host without machines; it has as many machines as the memory of the real host permits. Pages are asked for
over the Unix socket, to the last byte."""

MACHINES = 1_000
STEP = 5
SMALL = 16 << 20
TICK = Target(most=0.250)


def measure(quick: bool) -> Section:
    """Ticks by themselves, then a host with machines that run."""
    section = Section("Metrics", NOTES)
    machines, rounds = (100, 2) if quick else (MACHINES, 12)
    inside = json.loads(output("bench.metrics_inside", str(machines), "30" if quick else "120"))
    ticks = spread(inside["ticks"])
    section.add(Row(f"a tick of {machines} machines", ticks.high, ticks.text("ms", 1e3), "250 ms allowed", TICK))
    section.add(Row("memory of an archive", None, f"{inside['bytes'] / 1024:.0f} KiB per machine", ""))
    for what, seconds in inside["updates"].items():
        section.add(Row(f"making an update of {what}, {machines} machines", None, spread(seconds).text("ms", 1e3), ""))
    with tempfile.TemporaryDirectory() as name, host(Path(name)) as ours:
        idle = _per_round(ours, rounds)
        api = ours.api()
        vms = _start(api, machines)
        busy = _per_round(ours, rounds)
        what = f"a whole round of a simulated host with {len(vms)} machines"
        section.add(Row(what, None, f"{(busy - idle) * 1e3:.0f} ms", f"{idle * 1e3:.0f} ms without machines"))
        start = int(time.time()) - 2 * STEP
        for what, path in (
            (f"/rrd_updates of {2 * STEP} s, {len(vms)} machines", f"/rrd_updates?start={start}&cf=AVERAGE&host=true"),
            (f"/metrics, {len(vms)} machines", "/metrics"),
            ("/vm_rrd, a whole archive", f"/vm_rrd?uuid={api('VM.get_uuid', vms[0])}"),
        ):
            _page(section, ours, what, path, 3 if quick else 20)
    return section


def _start(api: Api, machines: int) -> list[str]:
    """Machines that run: as many as asked for, or as fit into memory."""
    first = new_machine(api, "machine", cards=1)
    api("VM.set_memory_limits", first, *[str(SMALL)] * 4)
    running: list[str] = []
    for vm in [first, *(str(api("VM.clone", first, "machine")) for _ in range(1, machines))]:
        try:
            api("VM.start", vm, False, False)
        except RefusedError as error:
            if error.args[0] != "HOST_NOT_ENOUGH_FREE_MEMORY" or not running:
                raise
            break
        running.append(vm)
    return running


def _per_round(ours: Host, rounds: int) -> float:
    """Processor seconds of the host in one round, of some that follow each other."""
    time.sleep(STEP)
    before = processor_seconds(ours.pid)
    time.sleep(rounds * STEP)
    return (processor_seconds(ours.pid) - before) / rounds


def _page(section: Section, ours: Host, what: str, path: str, rounds: int) -> None:
    taken, size = [], 0
    for _ in range(rounds):
        begin = time.perf_counter()
        size = _get(ours.socket, path)
        taken.append(time.perf_counter() - begin)
    section.add(Row(what, None, spread(taken).text("ms", 1e3), f"{size / 1e6:.2f} MB"))


def _get(path: Path, target: str) -> int:
    """Ask for a page and receive it. Returns the bytes of the answer. Raises `RuntimeError` for an error."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        received, first = 0, b""
        while block := connection.recv(1 << 20):
            first = first or block
            received += len(block)
    if b" 200 " not in first[:32]:
        raise RuntimeError(f"{target}: {first[:200]!r}")
    return received
