"""Files that somebody else put into a repository, or sent us."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage.files import layers
from domzero.host.storage.protocol import StorageError
from tests.host.storage.disks import MIB, Shelf, holds, refused, tool, uuid, write


def hostile(path: Path, *options: str) -> None:
    tool("qemu-img", "create", "-q", "-f", "qcow2", *options, path, "1M")


@pytest.mark.parametrize(
    "options",
    [
        ("-u", "-b", "/etc/passwd", "-F", "raw"),
        ("-u", "-b", f"../base-{uuid(7)}.qcow2", "-F", "qcow2"),
        ("-u", "-b", f"base-{uuid(7)}.qcow2", "-F", "raw"),
        ("-u", "-b", "json:{}", "-F", "qcow2"),
        ("-u", "-b", f"{uuid(3)}.qcow2", "-F", "qcow2"),
        ("-o", "data_file=secret"),
    ],
    ids=["elsewhere", "above", "raw", "json", "a disk", "data file"],
)
async def test_an_image_that_names_other_files_is_refused(
    shelf: Shelf,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)  # qemu-img makes the data file where it stands
    hostile(shelf.directory / f"{uuid(1)}.qcow2", *options)
    assert await shelf.driver.scan(shelf.repository) == []
    assert uuid(1) in caplog.text
    await refused(65, shelf.driver.source(shelf.repository, uuid(1)))
    await refused(65, shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2)))
    hostile(tmp_path / "upload", *options)
    upload = DiskSource(tmp_path / "upload", DiskFormat.QCOW2)
    await refused(65, shelf.driver.copy_disk(upload, shelf.repository, uuid(2), MIB, lambda _: None))
    await shelf.driver.destroy_disk(shelf.repository, uuid(1))
    assert not (shelf.directory / f"{uuid(1)}.qcow2").exists()


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"#!/bin/sh\n" * 100, b"QFI\xfb" + b"\xff" * 4092])
async def test_files_that_are_no_images_are_left_out(shelf: Shelf, content: bytes) -> None:
    (shelf.directory / f"{uuid(1)}.qcow2").write_bytes(content)
    assert await shelf.driver.scan(shelf.repository) == []
    await refused(65, shelf.driver.source(shelf.repository, uuid(1)))


async def test_links_loops_and_pipes_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    hostile(tmp_path / "elsewhere")
    (shelf.directory / f"{uuid(1)}.qcow2").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(shelf.directory / f"{uuid(2)}.qcow2")
    loop = f"base-{uuid(3)}.qcow2"
    hostile(shelf.directory / f"{uuid(3)}.qcow2", "-u", "-b", loop, "-F", "qcow2")
    hostile(shelf.directory / loop, "-u", "-b", loop, "-F", "qcow2")
    for number in (1, 2, 3):
        with pytest.raises(StorageError):
            await shelf.source(number)
    assert await shelf.numbers() <= {3}


async def test_while_a_disk_cannot_be_read_no_base_is_removed(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), MIB)
    write(await shelf.source(1), 1)
    await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    path = shelf.directory / f"{uuid(2)}.qcow2"
    good = path.read_bytes()
    path.write_bytes(b"\0" * 4096)
    await shelf.driver.destroy_disk(shelf.repository, uuid(1))
    assert shelf.bases() == 1
    path.write_bytes(good)
    assert await shelf.numbers() == {2}
    assert holds(await shelf.source(2), 1)


async def test_headers_agree_with_qemu_img(shelf: Shelf) -> None:
    await shelf.driver.create_disk(shelf.repository, uuid(1), 5 * MIB)
    write(await shelf.source(1), 1)
    await shelf.driver.clone_disk(shelf.repository, uuid(1), uuid(2))
    for name in shelf.files():
        told = json.loads(tool("qemu-img", "info", "--output=json", shelf.directory / name))
        header = layers.read_layer(shelf.directory, name).header
        assert header.virtual_size == told["virtual-size"]
        assert header.backing == told.get("backing-filename")
        assert header.backing_format == told.get("backing-filename-format")
