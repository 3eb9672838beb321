"""The children of the process that runs the tests."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children() -> dict[int, str]:
    """Process ids and names of those that this process started. Threads and children may end while they are counted."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        pids: list[str] = []
        with suppress(FileNotFoundError, ProcessLookupError):
            pids = (task / "children").read_text().split()
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):
                found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
    return found


def arguments(pid: int) -> list[bytes]:
    """Its command line, nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def status(pid: int) -> dict[str, str]:
    """The fields of proc(5)'s status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
