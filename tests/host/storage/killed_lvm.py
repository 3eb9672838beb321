"""Carry out operations on a volume group and die at a chosen change. Run as a program of its own, like `killed`.

Each line of input is a device, a verb, the number of the change after which to die, and 1 for the kernel's device
mapper or 0 to do without it, separated by tabs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from domzero.host.storage.lvm.driver import LvmStorage
from tests.host.storage.disks import MIB, raw, uuid
from tests.host.storage.killed import Steps, end_with
from tests.host.storage.loops import on

EXTENT = 4 * MIB


async def act(device: Path, verb: str, last: int, mapped: bool) -> None:
    """Changes made by `attach` count for the verb `attach` only."""
    steps = Steps(last if verb == "attach" else 0)
    driver = LvmStorage(mapped=mapped, step=steps)
    here = on(device)
    if verb not in ("found", "erase"):
        await driver.attach(here)
    steps.left = last
    await work(driver, device, verb)


async def work(driver: LvmStorage, device: Path, verb: str) -> None:
    """One operation on what `test_lvm_killed.prepare` made, or on an empty device or group."""
    here = on(device)
    if verb == "create":
        await driver.create_disk(here, uuid(9), EXTENT)
    elif verb == "copy":
        image = raw(Path(f"/dev/shm/domzero-test-{os.getpid()}"), EXTENT, b"\7" * 65536)
        try:
            await driver.copy_disk(image, here, uuid(9), EXTENT, lambda _: None)
        finally:
            image.path.unlink()
    elif verb == "grow":
        await driver.resize_disk(here, uuid(3), 2 * EXTENT)
    elif verb == "move":
        await driver.resize_disk(here, uuid(1), 2 * EXTENT)
    elif verb == "destroy":
        await driver.destroy_disk(here, uuid(1))
    elif verb == "found":
        await driver.create(here, 0)
    elif verb == "erase":
        await driver.destroy(here)
    elif verb != "attach":
        raise ValueError(verb)


def main() -> None:
    for line in sys.stdin:
        device, verb, last, mapped = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            end_with(act(Path(device), verb, int(last), mapped == "1"))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
