"""Looks at a Linux machine by /proc and /sys (proc(5)), and by programs where they are installed."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from domzero.host.diagnosis.protocol import Texts
from domzero.host.process import ENVIRONMENT, ProcessError, run

MOST = 1 << 20
"""Bytes of one text; of longer ones the end is kept, where the latest is."""
PATIENCE = 10.0
"""Seconds that a program may take."""
PROCESSES = 5_000
MACHINES = 500
"""How many are looked at, at most."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")

NETWORK = (
    ("ip", "-details", "address"), ("ip", "-statistics", "link"), ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route"), ("ip", "neighbour"), ("bridge", "link"), ("bridge", "vlan"), ("nft", "list", "ruleset"),
    ("ovs-vsctl", "show"), ("ss", "-tulnp"),
)  # fmt: skip
STORAGE = (
    ("lsblk", "--output", "NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT,MODEL,ROTA,RO"), ("df", "--print-type", "--local"),
    ("pvs",), ("vgs",), ("lvs", "--all"),
)  # fmt: skip
HARDWARE = (("lspci", "-nn"), ("lsusb",), ("uname", "--all"))


class LinuxDiagnosis:
    """Implements `Diagnosis`. Machines are those with files below `runtime`; `logs` is where domzero's own logs are."""

    def __init__(self, runtime: Path, logs: Path) -> None:
        self._runtime = runtime
        self._logs = logs

    async def processes(self) -> Texts:
        """See `Diagnosis`."""
        return {"processes.txt": await asyncio.to_thread(_processes)}

    async def hypervisor(self) -> Texts:
        """See `Diagnosis`."""
        return await asyncio.to_thread(_machines, self._runtime)

    async def network(self) -> Texts:
        """See `Diagnosis`."""
        files = {"proc-net-dev.txt": Path("/proc/net/dev"), "resolver.txt": Path("/etc/resolv.conf")}
        return {**await _read(files), **await _said(NETWORK)}

    async def storage(self) -> Texts:
        """See `Diagnosis`."""
        names = ("partitions", "diskstats", "mounts", "mdstat")
        return {**await _read({f"{name}.txt": Path("/proc", name) for name in names}), **await _said(STORAGE)}

    async def hardware(self) -> Texts:
        """See `Diagnosis`."""
        names = ("cpuinfo", "meminfo", "modules", "interrupts", "loadavg", "uptime", "vmstat", "swaps")
        return {**await _read({f"{name}.txt": Path("/proc", name) for name in names}), **await _said(HARDWARE)}

    def log_files(self) -> tuple[Path, ...]:
        """See `Diagnosis`."""
        return tuple(sorted(path for path in self._logs.glob("*.log*") if path.is_file() and not path.is_symlink()))


async def _read(files: dict[str, Path]) -> Texts:
    return await asyncio.to_thread(lambda: {name: tail(path) for name, path in files.items() if path.exists()})


def tail(path: Path) -> str:
    """The end of a file, or why it cannot be read. Links are not followed, and only plain files read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            # Files of /proc have no size and cannot be read from their end.
            size = os.fstat(descriptor).st_size
            if size > MOST:
                file.seek(size - MOST)
            return file.read(MOST).decode(errors="replace")
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}\n"


async def _said(commands: Sequence[Sequence[str]]) -> Texts:
    found = [command for command in commands if shutil.which(command[0], path=ENVIRONMENT["PATH"])]
    said = await asyncio.gather(*(_one(command) for command in found))
    return {
        f"{'-'.join(part.strip('-') for part in command[:3])}.txt"[:60]: text
        for command, text in zip(found, said, strict=True)
    }


async def _one(command: Sequence[str]) -> str:
    try:
        done = await run(command, timeout=PATIENCE, check=False)
    except ProcessError as error:
        return f"{error}\n"
    return (done.stdout[-MOST:] + done.stderr[-MOST:]).decode(errors="replace")


def _numbers() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _processes() -> str:
    lines = ["pid parent state processor-seconds resident-KiB threads name"]
    for number in islice(_numbers(), PROCESSES):
        try:
            # The name stands in parentheses, and may hold some itself (proc(5)).
            head, _, rest = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue  # it has ended meanwhile
        fields, name = rest.split(), head.partition("(")[2]
        seconds = (int(fields[11]) + int(fields[12])) / _TICK
        resident = int(fields[21]) * _PAGE >> 10
        lines.append(f"{number} {fields[1]} {fields[0]} {seconds:.1f} {resident} {fields[17]} {name}")
    return "\n".join(lines) + "\n"


def _machines(runtime: Path) -> Texts:
    """Logs of machines, and the command lines of processes that have files of theirs among the arguments."""
    texts = {"command-lines.txt": "\n\n".join(_command_lines(str(runtime))) + "\n"}
    for log in islice(sorted(runtime.glob("*/qemu.log")), MACHINES):
        texts[f"domain-{log.parent.name}-qemu.log"] = tail(log)
    return texts


def _command_lines(among: str) -> Iterator[str]:
    for number in _numbers():
        try:
            arguments = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if Path(arguments[0]).name.startswith("qemu-") and any(among in argument for argument in arguments):
            yield f"{number}:\n    " + "\n    ".join(arguments[:500])
