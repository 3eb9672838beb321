"""Carry out operations on repositories and die at a chosen change. Run as a program of its own.

Each line of input is a directory, a verb and the number of the change after which to die, separated by tabs. A child
process does it; its exit code is the answer: `DIED`, or 0 when the operation was over before that.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn

from domzero.host.hypervisor.spec import DiskSource, LayerPull
from domzero.host.storage.files import coalesce, layers
from domzero.host.storage.files.file import FileStorage
from domzero.host.storage.protocol import LiveMerge, Progress, Repository
from tests.host.storage.disks import MIB, raw, repository, tool, uuid, write

DIED = 77


class Steps:
    """Counts changes; the process ends at the last one, with nothing tidied."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __call__(self, _: str) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(DIED)


async def switch(source: DiskSource) -> None:
    """A machine that moves to the new layer and writes there at once."""
    write(source, 50, MIB)


async def act(directory: Path, verb: str, last: int) -> None:
    """Changes made by `attach` count for the verb `attach` only."""
    steps = Steps(last if verb == "attach" else 0)
    driver = FileStorage(step=steps)
    here = repository(directory)
    await driver.attach(here)
    steps.left = last
    if verb == "merge":
        layers.MERGE_FROM = 3
        await driver.clone_disk(here, uuid(1), uuid(9))
    elif verb in ("push", "pull", "live pull"):
        await merge(driver, here, verb)
    elif verb == "resize":
        await driver.resize_disk(here, uuid(1), 8 * MIB)
    elif verb == "grow vhd":
        await driver.resize_disk(here, uuid(6), 8 * MIB)
    elif verb == "clone vhd":
        await driver.clone_disk(here, uuid(6), uuid(9))
    elif verb == "clone":
        await driver.clone_disk(here, uuid(1), uuid(9))
    elif verb == "snapshot":
        await driver.snapshot_disk(here, uuid(1), uuid(9), switch)
    elif verb == "destroy":
        await driver.destroy_disk(here, uuid(1))
    elif verb == "create":
        await driver.create_disk(here, uuid(9), MIB)
    elif verb == "copy":
        source = raw(directory.parent / "image", MIB, b"\7" * 65536)
        await driver.copy_disk(source, here, uuid(9), MIB, lambda _: None)
    elif verb != "attach":
        raise ValueError(verb)


async def merge(driver: FileStorage, here: Repository, verb: str) -> None:
    """Disk 1 takes over the layer below it, or gives that what it holds."""

    async def pull(wanted: LayerPull, progress: Progress) -> None:
        tool("qemu-img", "rebase", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(wanted.backing_name), wanted.upper)

    coalesce.pushes_down = lambda upper, lower: verb == "push"
    for each in await driver.merges(here):
        if each.upper == layers.disk_name(uuid(1)):
            await driver.merge(here, each, lambda _: None, LiveMerge(pull) if verb == "live pull" else None)


def end_with(work: Coroutine[Any, Any, None]) -> NoReturn:
    """Do it, and end this process without the parent's clean-up."""
    code = 1
    try:
        asyncio.run(work)
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def main() -> None:
    for line in sys.stdin:
        directory, verb, last = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            end_with(act(Path(directory), verb, int(last)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
