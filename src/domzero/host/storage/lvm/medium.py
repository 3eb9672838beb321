"""What brings a repository's block devices: the part of the LVM driver that differs between a disk and a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from domzero.host.storage.protocol import DriverInfo


class DeviceMedium(Protocol):
    """One kind of block devices. All methods raise `StorageError`, within a bounded time."""

    def info(self) -> DriverInfo:
        """What the driver is."""
        ...

    async def connect(self, device_config: Mapping[str, str]) -> tuple[Path, ...]:
        """Make the devices usable on this host, until `disconnect` was called as many times as this.

        Where the configuration says too little, the error carries a menu of what there is.
        """
        ...

    async def disconnect(self, device_config: Mapping[str, str]) -> None:
        """Let go of the devices, if nobody else uses them."""
        ...
