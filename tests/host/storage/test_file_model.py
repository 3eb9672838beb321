"""Random sequences of operations on a repository, compared with a dictionary."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domzero.host.hypervisor.spec import DiskSource, LayerPull
from domzero.host.storage.files import layers
from domzero.host.storage.files.file import FileStorage
from domzero.host.storage.files.marker import MARKER
from domzero.host.storage.protocol import LiveMerge, Progress, Repository
from tests.host.storage.disks import MIB, holds, opened, refused, tool, uuid, write

OFFSETS = (0, MIB - 65536)


@dataclass
class Disk:
    """What a disk should be: its size and the mark at each offset."""

    size: int
    marks: dict[int, int] = field(default_factory=dict)
    format: str = "qcow2"


VERBS = (
    "create",
    "create vhd",
    "write",
    "write",
    "clone",
    "snapshot",
    "running snapshot",
    "copy",
    "resize",
    "destroy",
    "merge",
    "merge",
    "running merge",
)
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(VERBS), st.integers(0, 7), st.sampled_from(OFFSETS)), min_size=4, max_size=16
)


CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(CALM, max_examples=3)
@given(OPERATIONS)
def test_disks_are_what_a_dictionary_says(operations: list[tuple[str, int, int]]) -> None:
    compare_here(operations)


@pytest.mark.slow
@settings(CALM, max_examples=100)
@given(OPERATIONS)
def test_disks_are_still_what_a_dictionary_says(operations: list[tuple[str, int, int]]) -> None:
    compare_here(operations)


def compare_here(operations: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(Path(directory) / "sr", operations))


async def compare(directory: Path, operations: list[tuple[str, int, int]]) -> None:
    driver = FileStorage()
    here = await opened(driver, directory)
    model: dict[str, Disk] = {}
    for number, (verb, choice, offset) in enumerate(operations, start=1):
        name = sorted(model)[choice % len(model)] if model else None
        if name is None or verb.startswith("create"):
            format = "vhd" if verb.endswith("vhd") else "qcow2"
            await driver.create_disk(here, uuid(number), 2 * MIB, {"image-format": format})
            model[uuid(number)] = Disk(2 * MIB, {}, format)
        elif verb.endswith("merge"):
            await merge(driver, here, choice, running=verb.startswith("running"))
        else:
            await act(driver, here, model, verb, name, number, offset)
        await check(driver, here, directory, model)
    for name, disk in model.items():
        source = await driver.source(here, name)
        for offset in OFFSETS:
            assert holds(source, disk.marks.get(offset, 0), offset)
    await driver.detach(here)


async def act(
    driver: FileStorage, here: Repository, model: dict[str, Disk], verb: str, name: str, number: int, offset: int
) -> None:
    """Do one thing to disk `name`, on the medium and in the model."""
    disk, new = model[name], uuid(number)
    copy = Disk(disk.size, dict(disk.marks), disk.format)

    async def switch(source: DiskSource) -> None:
        write(source, 100 + number, offset)
        disk.marks[offset] = 100 + number

    if verb == "write":
        write(await driver.source(here, name), number, offset)
        disk.marks[offset] = number
    elif verb == "resize":
        disk.size += 2 * MIB
        await driver.resize_disk(here, name, disk.size)
    elif verb == "destroy":
        await driver.destroy_disk(here, name)
        del model[name]
    elif verb == "running snapshot" and disk.format != "qcow2":
        await refused(82, driver.snapshot_disk(here, name, new, switch))
    else:
        model[new] = copy
        if verb == "clone":
            await driver.clone_disk(here, name, new)
        elif verb == "copy":
            copy.format = "qcow2"
            await driver.copy_disk(await driver.source(here, name), here, new, disk.size, lambda _: None)
        else:
            await driver.snapshot_disk(here, name, new, switch if verb == "running snapshot" else None)


async def merge(driver: FileStorage, here: Repository, choice: int, *, running: bool) -> None:
    """Carry out one of the merges that are possible."""

    async def pull(wanted: LayerPull, progress: Progress) -> None:
        below = ["-F", "qcow2", "-b", wanted.backing_name] if wanted.backing_name else ["-b", ""]
        tool("qemu-img", "rebase", "-q", "-f", "qcow2", *below, wanted.upper)

    possible = await driver.merges(here)
    if possible:
        chosen = possible[choice % len(possible)]
        await driver.merge(here, chosen, lambda _: None, LiveMerge(pull) if running else None)
        assert chosen not in await driver.merges(here)


async def check(driver: FileStorage, here: Repository, directory: Path, model: dict[str, Disk]) -> None:
    allocated = (await driver.size(here)).virtual_allocation  # before the scan, which looks at every file
    assert allocated == sum(disk.size for disk in model.values())
    found = {disk.uuid: disk.virtual_size for disk in await driver.scan(here)}
    assert found == {name: disk.size for name, disk in model.items()}
    needed = {MARKER}
    for name in model:
        if model[name].format == "qcow2":
            needed |= {layer.name for layer in layers.read_chain(directory, layers.disk_name(name))}
        else:
            needed.add(f"{name}.{model[name].format}")
    assert set(os.listdir(directory)) == needed
