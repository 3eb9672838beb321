"""Finding the processes of machines."""

from __future__ import annotations

from pathlib import Path


def process_of(uuid: str) -> int:
    """The QEMU process of the machine with this uuid."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"qemu-system" in command.split(b"\0")[0] and uuid.encode() in command:
            return int(entry.name)
    raise AssertionError(f"no process runs {uuid}")
