"""Reads what Linux says about the machine: processors, memory, load, names.

Sources: proc(5). The root of the file system is an argument, so that tests can show another machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from domzero.host.metrics.protocol import MachineInfo, Memory, Processor, ProcessorTimes, ProcessUsage


class LinuxFacts:
    """Implements `HostFacts`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def machine(self) -> MachineInfo:
        """See `HostFacts`."""
        return _read_machine(self._root)

    def memory(self) -> Memory:
        """See `HostFacts`."""
        return _read_memory(self._root)

    def processor_times(self) -> Mapping[int, ProcessorTimes]:
        """See `HostFacts`."""
        return _read_processor_times(self._root)

    def load_average(self) -> float:
        """See `HostFacts`."""
        return float((self._root / "proc/loadavg").read_text().split()[0])

    def own_usage(self) -> ProcessUsage:
        """See `HostFacts`."""
        own = self._root / "proc/self"
        pages = int((own / "statm").read_text().split()[1])
        return ProcessUsage(pages * os.sysconf("SC_PAGESIZE"), len(os.listdir(own / "fd")))


def _read_machine(root: Path) -> MachineInfo:
    proc = root / "proc"
    return MachineInfo(
        hostname=os.uname().nodename,
        kernel=(proc / "sys/kernel/osrelease").read_text().strip(),
        boot_id=(proc / "sys/kernel/random/boot_id").read_text().strip(),
        boot_time=_boot_time((proc / "stat").read_text()),
        processors=tuple(parse_processors((proc / "cpuinfo").read_text())),
        memory=_read_memory(root),
    )


def _read_memory(root: Path) -> Memory:
    text = (root / "proc/meminfo").read_text()
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return Memory(sizes["MemTotal"], sizes["MemAvailable"])


def _read_processor_times(root: Path) -> dict[int, ProcessorTimes]:
    times = {}
    for line in (root / "proc/stat").read_text().splitlines():
        match = re.match(r"cpu(\d+) (.*)", line)
        if match:
            # user nice system idle iowait irq softirq steal; guest time is part of user time already.
            ticks = [int(word) for word in match[2].split()[:8]]
            times[int(match[1])] = ProcessorTimes(sum(ticks) - ticks[3] - ticks[4], sum(ticks))
    return times


def parse_processors(text: str) -> Iterator[Processor]:
    """The processors in the text of /proc/cpuinfo; what a processor does not tell is empty or 0."""
    for block in text.strip().split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        values = {key.strip(): value.strip() for key, _, value in pairs}
        if "processor" not in values:
            continue
        yield Processor(
            number=_int(values["processor"]),
            vendor=values.get("vendor_id", ""),
            speed=_int(values.get("cpu MHz", "0").partition(".")[0]),
            model_name=values.get("model name", ""),
            family=_int(values.get("cpu family", "0")),
            model=_int(values.get("model", "0")),
            stepping=values.get("stepping", ""),
            flags=values.get("flags", values.get("Features", "")),
            socket=values.get("physical id", "0"),
            core=values.get("core id", values["processor"]),
        )


def _boot_time(stat: str) -> float:
    match = re.search(r"^btime (\d+)$", stat, re.MULTILINE)
    return float(match[1]) if match else 0.0


def _int(text: str) -> int:
    return int(text) if text.isdigit() else 0
