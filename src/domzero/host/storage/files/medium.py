"""What holds the directory of a repository: the part of a driver that differs between directory, disk and server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from domzero.host.storage.protocol import DriverInfo, ProbedRepository, Repository


class Medium(Protocol):
    """One kind of medium. All methods raise `StorageError`, within a bounded time."""

    patience: float
    """Seconds that one step on the medium may take before it counts as not answering."""
    shared: bool
    """Whether other hosts may have the repository attached as well."""
    mode: int
    """Permissions of the disks' files, in a directory that nobody else may enter. A machine gets them opened; it needs
    permissions of its own only where a server looks at who asks each time."""
    whole: bool
    """Whether the repository is all that is on it, so that `erase` alone removes it."""

    def info(self) -> DriverInfo:
        """What the driver is."""
        ...

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:
        """As `StorageDriver.probe`."""
        ...

    async def create(self, repository: Repository) -> None:
        """Make it fit for a directory, without any on it. What is there already is never lost by accident."""
        ...

    async def attach(self, repository: Repository) -> Path:
        """Make it usable; answers the repository's directory. Doing it twice is no error."""
        ...

    async def detach(self, repository: Repository) -> None:
        """Let go of it, also when it does not answer. Doing it twice is no error."""
        ...

    async def erase(self, repository: Repository) -> None:
        """Undo `create`; it is not attached."""
        ...
