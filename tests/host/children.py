"""The children of the process that runs the tests."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children() -> dict[int, str]:
    """Process ids and names of those that this process started. Threads and children may end while they are counted."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in (task / "children").read_text().split():
                found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
    return found
