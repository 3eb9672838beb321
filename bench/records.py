"""Reading all machines at once, what a machine costs in memory, and how long a full host takes to start."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from bench.client import Api, request
from bench.hosts import Host, host, new_machine
from bench.processes import output, resident_bytes
from bench.report import Row, Section, Spread, Target, spread

NOTES = """Machines are clones, made through the API on the simulator, each with a disk, a card and their metrics.
`get_all_records` is timed in the server's own code, from the request's bytes to the answer's bytes, which are then sent
as they are; `xmlrpc.client.dumps` of the same records as plain values is timed in the same process, in turn. Sending
to a client on the Unix socket and receiving is a row of its own. Memory is what the host's process holds beyond that of
an empty host, divided by the number of machines."""

SIZES = (100, 1_000, 10_000)
STARTS = 5
SAME, CHANGED = Target(least=100), Target(least=50)
COLD, WARM, START = Target(most=25_000), Target(most=50_000), Target(most=3.0)
CLASSES = ("VM", "VBD", "VIF", "VM_metrics", "VBD_metrics", "VIF_metrics", "VDI")


def measure(quick: bool) -> Section:
    """Every size in turn, on a host that grows."""
    section = Section("All records", NOTES)
    sizes, rounds = (SIZES[:2], 5) if quick else (SIZES, 20)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for size in sizes:
            with host(directory) as ours:
                sending = _grow(ours.api(), size, rounds)
            _read(section, directory, size, rounds, sending)
        _memory(section, directory, sizes[-1])
    return section


def _grow(api: Api, size: int, rounds: int) -> list[float]:
    """Clone the first machine until there are that many. Returns seconds to call for and receive all records."""
    first, *others = api("VM.get_by_name_label", "machine") or [new_machine(api, "machine", cards=1)]
    for _ in range(1 + len(others), size):
        api("VM.clone", first, "machine")
    call = request("VM.get_all_records", api.session)
    seconds = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        api.exchange(call)
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def _read(section: Section, directory: Path, size: int, rounds: int, sending: list[float]) -> None:
    found = json.loads(output("bench.records_inside", directory / "state", str(rounds)))
    dumps = spread(found["dumps"])
    what = f"VM.get_all_records, {size} machines"
    kinds = (
        (f"{what}, nothing changed", found["same"], SAME),
        (f"{what}, 1 % changed", found["changed"], CHANGED),
        (f"{what}, nothing changed, to the last byte at the client", sending, None),
    )
    for kind, seconds, target in kinds:
        ours = spread(seconds)
        beside = f"{dumps.text('ms', 1e3)} for dumps"
        section.add(Row(kind, dumps.median / ours.median, ours.text("ms", 1e3), beside, target))


def _memory(section: Section, directory: Path, size: int) -> None:
    """Start the full host again, so that nothing of its history is in its memory, and an empty one beside it."""
    empty = directory / "empty"
    empty.mkdir()
    with host(empty):
        pass  # the first start makes templates and storage
    with host(empty) as none:
        base = resident_bytes(none.pid)
        base_warm = _warm(none)
    with host(directory) as full:
        cold = (resident_bytes(full.pid) - base) / size
        warm = (_warm(full) - base_warm) / size
    for state, measured, target in (("as started", cold, COLD), ("after every class was read", warm, WARM)):
        what = f"bytes for each of {size} machines with disk, drive, card and metrics, {state}"
        section.add(Row(what, measured, f"{measured / 1e3:.1f} kB", f"limit {target.most or 0:g}", target))
    start, beside = _start_seconds(directory), _start_seconds(empty)
    limit = f"an empty host {beside.text('s')}, limit {START.most:g} s"
    section.add(Row(f"seconds from exec to serving, {size} machines", start.median, start.text("s"), limit, START))


def _start_seconds(directory: Path) -> Spread:
    seconds = []
    for _ in range(STARTS):
        with host(directory, core=None) as started:
            seconds.append(started.start_seconds)
    return spread(seconds)


def _warm(ours: Host) -> int:
    """Read every class once, as a client's first look does; the memory held afterwards."""
    api = ours.api()
    for cls in CLASSES:
        api.exchange(request(f"{cls}.get_all_records", api.session))
    api.close()
    return resident_bytes(ours.pid)
