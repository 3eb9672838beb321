"""The storage repositories that a host has from its first start on, as an installed XenServer does (guide, 5.6).

Client programs recognise them by `i18n-key` and show names of their own, as long as the name is still the original.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domzero.host.storage.protocol import StorageError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.repositories import repository_of
from domzero.toolstack.storage.scanning import AUTO_SCAN

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Installed:
    """A repository to be made where its driver is there. One of `directory` and `location` says where it is."""

    name: str
    description: str
    type: str
    content_type: str
    key: str
    directory: str = ""
    """A directory of ours, below the state directory."""
    location: str = ""
    auto_scan: bool = True
    is_tools: bool = False
    """It holds the disc with the guest tools."""

    def fields(self) -> dict[str, Any]:
        """The SR's row."""
        return {
            "name_label": self.name,
            "name_description": self.description,
            "type": self.type,
            "content_type": self.content_type,
            "physical_size": 0,
            "is_tools_sr": self.is_tools,
            "other_config": {
                "i18n-key": self.key,
                "i18n-original-value-name_label": self.name,
                "i18n-original-value-name_description": self.description,
                **({AUTO_SCAN: "true"} if self.auto_scan else {}),
                **({"xenserver_tools_sr": "true"} if self.is_tools else {}),
            },
        }


LOCAL_STORAGE = Installed(
    "Local storage", "Disks of virtual machines, in files of this host", "file", "user", "local-storage",
    directory="sr", auto_scan=False,
)  # fmt: skip
OTHERS = (
    Installed(
        "ISO library", "CD images: put .iso files into this directory of the host", "iso", "iso", "local-iso-library",
        directory="iso",
    ),
    Installed(
        "DVD drives", "The host's own CD and DVD drives", "udev", "iso", "local-hotplug-cd", location="/dev/xapi/cd",
    ),
    Installed(
        "Removable storage", "Removable disks plugged into the host", "udev", "disk", "local-hotplug-disk",
        location="/dev/xapi/block",
    ),
)  # fmt: skip


async def ensure_repositories(stack: Stack) -> None:
    """At the first start: make them, and use the local storage for everything that names none."""
    if stack.database.get("pool", stack.pool, "default_SR") != NULL_REF or stack.database.refs("SR"):
        return
    local = await create_installed(stack, LOCAL_STORAGE)
    for installed in OTHERS:
        await create_installed(stack, installed)
    if local is not None:
        with stack.database.transaction() as transaction:
            for field in ("default_SR", "suspend_image_SR", "crash_dump_SR"):
                transaction.update("pool", stack.pool, **{field: local})


async def create_installed(stack: Stack, installed: Installed) -> Ref | None:
    """Make the rows of one, and its directory. None where its driver is not there."""
    driver = stack.storage.get(installed.type)
    if driver is None:
        return None
    configuration = await _configuration(stack, installed)
    with stack.database.transaction() as transaction:
        sr = transaction.create("SR", installed.fields())
        pbd = transaction.create("PBD", {"host": stack.host, "SR": sr, "device_config": configuration})
    try:
        await driver.create(repository_of(stack, sr, pbd), 0)
    except StorageError as error:
        log.warning("%s could not be prepared: %s", installed.name, error.text)
    return sr


async def _configuration(stack: Stack, installed: Installed) -> Mapping[str, str]:
    if installed.location:
        return {"location": installed.location}
    location = stack.settings.state_dir / installed.directory
    await asyncio.to_thread(location.mkdir, mode=0o700, parents=True, exist_ok=True)
    return {"location": str(location)}
