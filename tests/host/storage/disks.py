"""What the storage tests share: repositories in a directory, and marks written into disks with qemu-io."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Awaitable
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.files import layers
from domzero.host.storage.files.file import FileStorage
from domzero.host.storage.files.marker import MARKER
from domzero.host.storage.protocol import Repository, StorageDriver, StorageError

MIB = 1 << 20
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) + 1
REPOSITORY = f"11111111-1111-4111-8111-{WORKER:012}"
"""Another one for each process that runs tests: what is named after it can be there once in the machine."""


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def repository(directory: Path) -> Repository:
    return Repository(REPOSITORY, {"location": str(directory)})


async def opened(driver: StorageDriver, directory: Path) -> Repository:
    """A repository, made and attached."""
    made = repository(directory)
    await driver.create(made, 0)
    await driver.attach(made)
    return made


def write(source: DiskSource, mark: int, offset: int = 0) -> None:
    """Fill 64 KiB at an offset with one byte, as a machine would."""
    _qemu_io(source, f"write -q -P {mark} {offset} 64k")


def holds(source: DiskSource, mark: int, offset: int = 0) -> bool:
    """Whether all of 64 KiB at an offset has that byte."""
    said = _qemu_io(source, f"read -P {mark} {offset} 64k", "-r")
    return "Pattern verification failed" not in said


def tool(*argv: str | Path) -> str:
    """What a program prints; it must succeed."""
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def _qemu_io(source: DiskSource, command: str, *options: str) -> str:
    argv = ["qemu-io", *options, "-f", source.format.value, "-c", command, str(source.path)]
    finished = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    said = finished.stdout + finished.stderr
    assert "can't open" not in said, said
    return said


def raw(path: Path, size: int, content: bytes = b"") -> DiskSource:
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)
    return DiskSource(path, DiskFormat.RAW)


class Shelf:
    """An attached repository and its driver."""

    def __init__(self, driver: FileStorage, directory: Path) -> None:
        self.driver = driver
        self.directory = directory
        self.repository = repository(directory)

    async def source(self, number: int) -> DiskSource:
        return await self.driver.source(self.repository, uuid(number))

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir() if path.name != MARKER)

    def bases(self) -> int:
        return sum(bool(layers.BASE_NAME.fullmatch(name)) for name in self.files())

    async def numbers(self) -> set[int]:
        return {int(disk.uuid[-12:], 16) for disk in await self.driver.scan(self.repository)}


async def refused(number: int, call: Awaitable[object]) -> str:
    with pytest.raises(StorageError) as caught:
        await call
    assert caught.value.number == number, caught.value.text
    return caught.value.text
