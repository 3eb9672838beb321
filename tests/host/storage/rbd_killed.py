"""Work on a disk in Ceph and die after a change. Run as a program of its own.

Its arguments are a verb, the step after which to die, and a file to copy; its input is the device_config.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.protocol import Repository
from domzero.host.storage.rbd.driver import RbdStorage
from tests.host.storage.disks import MIB, REPOSITORY, uuid

DIED = 77


async def act(verb: str, last: str, image: Path, device_config: dict[str, str]) -> None:
    def step(name: str) -> None:
        if name == last:
            os._exit(DIED)

    driver, here = RbdStorage(step=step), Repository(REPOSITORY, device_config)
    await driver.attach(here)
    if verb == "create":
        await driver.create_disk(here, uuid(1), MIB)
    elif verb == "copy":
        source = DiskSource(image, DiskFormat.RAW)
        await driver.copy_disk(source, here, uuid(1), 16 * MIB, lambda done: step("copying") if done else None)
    elif verb == "resize":
        await driver.resize_disk(here, uuid(1), 2 * MIB)
    else:
        await driver.destroy_disk(here, uuid(1))


if __name__ == "__main__":
    asyncio.run(act(sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.load(sys.stdin)))
