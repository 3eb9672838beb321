"""Full copies, full media, and disks that are in use."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import images
from domzero.host.storage.files.file import FileStorage
from domzero.host.storage.files.marker import MARKER
from tests.host.storage.disks import MIB, Shelf, holds, opened, raw, refused, tool, uuid, write


@pytest.mark.parametrize("format", [DiskFormat.RAW, DiskFormat.VPC])
async def test_a_copy_has_the_content_and_its_own_size(shelf: Shelf, tmp_path: Path, format: DiskFormat) -> None:
    source = raw(tmp_path / "image", 8 * MIB, b"\7" * 65536)
    if format is DiskFormat.VPC:
        tool("qemu-img", "convert", "-O", "vpc", "-o", "force_size=on", tmp_path / "image", tmp_path / "vhd")
        source = DiskSource(tmp_path / "vhd", format)
    seen: list[float] = []
    info = await shelf.driver.copy_disk(source, shelf.repository, uuid(1), 16 * MIB, seen.append)
    assert info.virtual_size == 16 * MIB
    assert info.physical_utilisation < MIB
    assert holds(await shelf.source(1), 7)
    assert holds(await shelf.source(1), 0, 12 * MIB)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert set(shelf.files()) == {f"{uuid(1)}.qcow2"}


async def test_a_copy_of_a_clone_stands_alone(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    write(await shelf.source(1), 1)
    await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    await shelf.driver.copy_disk(await shelf.source(2), shelf.repository, uuid(3), MIB, lambda _: None)
    for number in (1, 2):
        await shelf.driver.destroy_disk(shelf.repository, uuid(number))
    assert shelf.files() == [f"{uuid(3)}.qcow2"]
    assert holds(await shelf.source(3), 1)


async def test_a_copy_into_a_smaller_disk_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    source = raw(tmp_path / "image", 8 * MIB, b"\7" * 65536)
    await refused(79, shelf.driver.copy_disk(source, shelf.repository, uuid(1), 4 * MIB, lambda _: None))
    await refused(
        144,
        shelf.driver.copy_disk(
            DiskSource(tmp_path / "none", DiskFormat.RAW), shelf.repository, uuid(1), 4 * MIB, lambda _: None
        ),
    )
    assert shelf.files() == []


async def test_a_cancelled_copy_is_removed_and_its_child_ended(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool is made slow (by qemu-img's own option), so that it is not done when it is looked at."""
    slow = tmp_path / "qemu-img"
    slow.write_text('#!/bin/sh\n[ "$1" = convert ] && { shift; set -- convert -r 4M "$@"; }\nexec qemu-img "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setattr(images, "QEMU_IMG", str(slow))
    source = raw(tmp_path / "image", 256 * MIB, b"\7" * (128 * MIB))
    begun = asyncio.Event()
    call = asyncio.ensure_future(
        shelf.driver.copy_disk(source, shelf.repository, uuid(1), 256 * MIB, lambda _: begun.set())
    )
    await begun.wait()
    assert await shelf.numbers() == set()
    assert shelf.files() == [f"new-{uuid(1)}.qcow2"]
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert shelf.files() == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_a_full_medium_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=2m", "none", mount)
    try:
        driver = FileStorage()
        made = await opened(driver, mount / "sr")
        source = raw(tmp_path / "image", 4 * MIB, os.urandom(4 * MIB))
        await refused(44, driver.copy_disk(source, made, uuid(1), 4 * MIB, lambda _: None))
        assert [path.name for path in (mount / "sr").iterdir()] == [MARKER]
        with (mount / "fill").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, os.statvfs(mount).f_bavail * os.statvfs(mount).f_bsize)
        await refused(44, driver.create_disk(made, uuid(1), MIB))
        await driver.detach(made)
    finally:
        tool("umount", mount)


@contextmanager
def machine_with(path: Path) -> Iterator[None]:
    """A process that has the disk open for writing."""
    argv: list[str | Path] = ["qemu-io", "-f", "qcow2", path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("length\n")
        process.stdin.flush()
        assert process.stdout.readline()
        yield
        process.stdin.close()


async def test_a_disk_that_a_machine_has_open_is_not_resized(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    with machine_with((await shelf.source(1)).path):
        await refused(24, shelf.driver.resize_disk(shelf.repository, uuid(1), 2 * MIB))
