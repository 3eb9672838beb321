"""`python -m bench [SUBJECT …]`: measures, and writes the results where no subject is left out."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import (
    archives,
    calls,
    commands,
    consoles,
    disks,
    events,
    machines,
    metrics,
    networks,
    plugging,
    records,
    starting,
    switched,
    talking,
    transfers,
    xenstore,
)
from bench.report import Section, calibration, results

RESULTS = Path(__file__).with_name("RESULTS.md")
SUBJECTS: Mapping[str, Callable[[bool], Section]] = {
    "calls": calls.measure,
    "records": records.measure,
    "events": events.measure,
    "machines": machines.measure,
    "starting": starting.measure,
    "disks": disks.measure,
    "plugging": plugging.measure,
    "consoles": consoles.measure,
    "commands": commands.measure,
    "metrics": metrics.measure,
    "networks": networks.measure,
    "switched": switched.measure,
    "transfers": transfers.measure,
    "archives": archives.measure,
    "xenstore": xenstore.measure,
    "talking": talking.measure,
}
PEERS = {"QEMU": "qemu-system-x86_64", "libvirt": "/usr/sbin/libvirtd"}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: to see that it works")
    parser.add_argument("--output", type=Path, help="where to write the table; without subjects, bench/RESULTS.md")
    given = parser.parse_args()
    unknown = sorted(set(given.subjects) - set(SUBJECTS))
    if unknown:
        parser.error(f"no such subject: {', '.join(unknown)}")
    sections = [measured(name, given.quick) for name in given.subjects or SUBJECTS]
    output = given.output or (None if given.subjects or given.quick else RESULTS)
    if output is not None:
        output.write_text(results(sections, machine()))
        print(f"written to {output}")


def measured(name: str, quick: bool) -> Section:
    """One subject's section, the machine's speed noted before and after."""
    print(f"\n{name}", flush=True)
    before = calibration()
    section = SUBJECTS[name](quick)
    section.calibration = (f"before: {before}", f"after: {calibration()}")
    print("; ".join(section.calibration), flush=True)
    return section


def machine() -> str:
    """What it was measured on, and when."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    found = [
        f"Python {platform.python_version()}",
        f"Linux {platform.release()}",
        *(version(*peer) for peer in PEERS.items()),
    ]
    when = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{when}, {os.cpu_count()} cores of {model}; {', '.join(filter(None, found))}."


def version(name: str, program: str) -> str:
    """A peer's name and the version that its program tells, empty where it is missing."""
    try:
        said = subprocess.run([program, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.search(r"\d+\.\d+\.\d+", said)
    return f"{name} {found[0]}" if found else name


if __name__ == "__main__":
    main()
