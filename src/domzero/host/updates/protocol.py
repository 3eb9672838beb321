"""Updates for the toolstack: what it may ask, and what can go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LARGEST = 256 << 20
"""Bytes that a bundle may have."""


class BundleError(Exception):
    """The file is no bundle, damaged, or not signed by anybody trusted; the text says why."""


class InstallError(Exception):
    """The bundle could not be installed; nothing changed. The text is what was said."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose signature and every byte were found good."""

    uuid: str
    name_label: str
    name_description: str
    version: str
    required_version: str
    guidance: tuple[str, ...]
    fits: bool
    """Whether it is meant for the version that runs."""


@dataclass(frozen=True, slots=True)
class Started:
    """What runs, and what does not."""

    version: str
    uuid: str
    """The bundle that it came with; empty for what was installed otherwise."""
    taken_back: tuple[str, ...]
    """Bundles that did not start, were taken back, and have not been installed again since."""


class Updates(Protocol):
    """The bundles that this host knows how to take."""

    async def inspect(self, file: Path) -> Bundle:
        """What a file is. Raises `BundleError`."""
        ...

    async def install(self, file: Path) -> str:
        """Have the bundle's version run from the next start on; what was said on the way.

        All or nothing, also when the host dies meanwhile. Raises `BundleError`, `InstallError`.
        """
        ...

    async def started(self) -> Started:
        """Say that this version has started well, and learn what it is."""
        ...
