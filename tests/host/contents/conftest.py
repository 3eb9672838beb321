"""Disks of every kind for the tests of their contents, and what can be said of this process's children."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from domzero.host.contents.files import FileContents
from domzero.host.contents.protocol import DiskContents
from domzero.host.contents.qemu import QemuContents
from domzero.host.hypervisor.spec import DiskFormat, DiskSource, Extent
from domzero.host.storage.images import source_arguments
from tests.host.children import children as all_children

KIB, MIB = 1 << 10, 1 << 20
SIZE = 24 * MIB
DATA = random.Random(7).randbytes(3 * MIB)
KINDS = ("file", "chain", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("raw", "qcow2", "vpc", "extent")))


def tool(*argv: str | Path) -> str:
    """What a program prints; it must succeed."""
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def make(kind: str, directory: Path) -> DiskSource:
    """A disk of `SIZE` that holds `DATA` from its third MiB on."""
    path, data = directory / f"disk.{kind}", directory / "data"
    data.write_bytes(bytes(2 * MIB) + DATA)
    if kind == "chain":
        base = make("qcow2", directory)
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", base.path, "-F", "qcow2", path)
        return DiskSource(path, DiskFormat.QCOW2)
    if kind == "extent":
        with path.open("wb") as file:
            file.write(bytes(MIB) + data.read_bytes())
            file.truncate(SIZE + 2 * MIB)
        return DiskSource(Extent(path, MIB, SIZE), DiskFormat.RAW)
    format = DiskFormat.RAW if kind == "file" else DiskFormat(kind)
    options = ["-o", "force_size=on"] if kind == "vpc" else []
    os.truncate(data, SIZE)
    tool("qemu-img", "convert", "-S", "4k", "-f", "raw", "-O", format.value, *options, data, path)
    return DiskSource(path, format)


def content(source: DiskSource, directory: Path) -> bytes:
    """What QEMU's tool finds on the disk."""
    flat = directory / "flat"
    tool("qemu-img", "convert", *source_arguments(source), "-O", "raw", flat)
    return flat.read_bytes()


def contents(kind: str, directory: Path) -> DiskContents:
    return FileContents() if kind == "file" else QemuContents(directory)


_others: set[int] = set()
"""The children that were there before the test."""


@pytest.fixture(autouse=True)
def none_of_others() -> None:
    """Children that other tests of this process have are none of ours."""
    _others.clear()
    _others.update(all_children())


def children() -> dict[int, str]:
    """Process ids and names of the children that a test has."""
    return {pid: name for pid, name in all_children().items() if pid not in _others}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A directory whose sockets' paths are longer than a socket's path may be."""
    path = tmp_path / ("a long name " * 9)
    path.mkdir()
    return path
