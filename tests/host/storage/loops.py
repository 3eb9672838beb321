"""Block devices for tests: loop devices on sparse files, and repositories of logical volumes on them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskSource, Extent
from domzero.host.storage.lvm.driver import LvmStorage
from domzero.host.storage.lvm.tool import ENVIRONMENT
from domzero.host.storage.protocol import Repository
from tests.host.storage.disks import MIB, REPOSITORY

needs_lvm = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("lvm") or not Path("/dev/loop-control").exists(),
    reason="needs root, LVM's tools and loop devices",
)


@contextmanager
def loop_device(path: Path, size: int = 256 * MIB) -> Iterator[Path]:
    """A block device of `size` bytes on a file, which is made where it is not there."""
    with path.open("ab") as file:
        file.truncate(max(size, path.stat().st_size))
    said = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=True)
    device = Path(said.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def on(*devices: Path, **more: str) -> Repository:
    """A repository on block devices."""
    return Repository(REPOSITORY, {"device": ",".join(map(str, devices)), **more})


async def opened(driver: LvmStorage, repository: Repository) -> Repository:
    """A repository, made and attached."""
    await driver.create(repository, 0)
    await driver.attach(repository)
    return repository


def read(source: DiskSource, offset: int, length: int) -> bytes:
    """What a volume holds, around the page cache of whoever wrote it: the file below is not looked at."""
    descriptor, start = _open(source, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, start + offset)
    finally:
        os.close(descriptor)


def write(source: DiskSource, offset: int, content: bytes) -> None:
    """What a machine would write."""
    descriptor, start = _open(source, os.O_RDWR)
    try:
        os.pwrite(descriptor, content, start + offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(source: DiskSource, mode: int) -> tuple[int, int]:
    return os.open(source.path, mode), source.place.offset if isinstance(source.place, Extent) else 0


def lvm(verb: str, device: Path, *arguments: str) -> str:
    """One of LVM's commands, as an operator would give it."""
    argv = ["lvm", verb, "--driverloaded", "n", "--devices", str(device), *arguments]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30, env=environment).stdout
