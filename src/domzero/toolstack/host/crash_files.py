"""What the host's own kernel left when it crashed: one directory each, as kdump-tools (and kdump elsewhere) make them.

Everything here blocks and belongs in a thread. What is found is whatever is there: nothing is followed out of the
directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

DUMPS = ("dump.", "dmesg.", "vmcore")
"""How the files begin that make a directory one of these (kdump-config(8); kdump.conf(5))."""


@dataclass(frozen=True, slots=True)
class Crash:
    """One directory. `moment` is seconds since the epoch, as of its newest dump; `size` bytes of all its files."""

    name: str
    moment: float
    size: int

    def uuid(self, host: str) -> str:
        """A uuid that is this crash's and no other's, whoever asks; `host` is the host's."""
        return str(uuid5(UUID(host), f"crash/{self.name}"))


def find(directory: Path) -> list[Crash]:
    """The crashes, by name; none where there is no such directory or it is not ours to read."""
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    return [crash for name in names if (crash := _look(directory / name)) is not None]


def _look(path: Path) -> Crash | None:
    try:
        with os.scandir(path) as entries:
            files = [(entry.name, entry.stat(follow_symlinks=False)) for entry in _regular(entries)]
    except OSError:
        return None
    moments = [status.st_mtime for name, status in files if name.startswith(DUMPS)]
    if not moments:
        return None
    return Crash(path.name, max(moments), sum(status.st_size for _, status in files))


def _regular(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in entries if entry.is_file(follow_symlinks=False))


def remove(directory: Path, crash: Crash) -> None:
    """Delete a crash's directory. Links in it go, what they lead to stays. Raises `OSError`."""
    if not shutil.rmtree.avoids_symlink_attacks:
        raise OSError("directories cannot be removed safely on this system")
    shutil.rmtree(directory / crash.name)
