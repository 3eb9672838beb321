"""What a report about a problem tells of the machine: texts for people, by the name of their file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

Texts = Mapping[str, str]


class Diagnosis(Protocol):
    """Looks at the machine and changes nothing. A part that cannot be had says why in its text; nothing is raised.

    Each text is of a few MiB at most. Passwords are not looked for here: what processes and programs say may hold some.
    """

    async def processes(self) -> Texts:
        """What runs, with the processor time and memory it takes, without the arguments it was given."""
        ...

    async def hypervisor(self) -> Texts:
        """The processes of virtual machines with their arguments, and what they said."""
        ...

    async def network(self) -> Texts:
        """Interfaces, addresses, routes, bridges, rules."""
        ...

    async def storage(self) -> Texts:
        """Block devices, file systems and how full they are."""
        ...

    async def hardware(self) -> Texts:
        """Processors, memory, devices."""
        ...

    def log_files(self) -> tuple[Path, ...]:
        """domzero's own logs, those that were turned over included."""
        ...
