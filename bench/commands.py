"""`xe`: how long a command takes from exec until it has ended, beside the interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.hosts import Host, host, new_machine
from bench.report import Row, Section, Target, spread

NOTES = """Our client as a process of its own, on the simulated host's Unix socket, output into a pipe. Beside it
Python that starts and ends (`python -c pass`), which is part of it. The ratio is all of it, in seconds."""

MACHINES = 1_000
START = Target(most=0.060)
LISTS = (
    (("vm-list", "--minimal"), Target(most=0.25)),
    (("vm-list",), Target(most=0.5)),
    (("vm-list", "params=all"), Target(most=2.0)),
)
"""Lists of all machines, and the seconds that each may take."""


def measure(quick: bool) -> Section:
    """A command that asks little, and lists of many machines."""
    section = Section("Commands", NOTES)
    rounds, machines = (5, 50) if quick else (40, MACHINES)
    bare = spread([_seconds(["-c", "pass"]) for _ in range(rounds)])
    with tempfile.TemporaryDirectory() as name, host(Path(name)) as ours:
        api = ours.api()
        first = new_machine(api, "machine")
        for _ in range(1, machines):
            api("VM.clone", first, "machine")
        help_ = spread([_command(ours, "help") for _ in range(rounds)])
        beside = f"{bare.text('ms', 1e3)} for the interpreter"
        section.add(Row("xe help", help_.median, help_.text("ms", 1e3), beside, START))
        for arguments, target in LISTS:
            taken = spread([_command(ours, *arguments) for _ in range(rounds)])
            what = f"xe {' '.join(arguments)}, {machines} machines"
            section.add(Row(what, taken.median, taken.text("ms", 1e3), beside, target))
    return section


def _command(ours: Host, *arguments: str) -> float:
    return _seconds(["-m", "domzero.client.xe", *arguments, "-s", str(ours.socket)])


def _seconds(arguments: Sequence[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - begin
