"""Making the image, without starting it."""

from __future__ import annotations

import stat
import struct
from pathlib import Path

import pytest

from domzero.host.guest_image import GuestImageError, build, default_roots, find_kernel
from domzero.host.guest_image.build import MODULES, is_static_executable, ramdisk_entries


def elf(*segment_types: int) -> bytes:
    header = struct.pack(
        "<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 2, 62, 1, 0, 64, 0, 0, 64, 56, len(segment_types), 0, 0, 0
    )
    return header + b"".join(struct.pack("<I52x", kind) for kind in segment_types)


def test_only_programs_without_an_interpreter_are_static() -> None:
    assert is_static_executable(elf(1, 1, 2))
    assert not is_static_executable(elf(1, 3, 2))
    assert not is_static_executable(elf(1, 1)[:-56])
    assert not is_static_executable(b"#!/bin/sh\n")
    assert not is_static_executable(b"")


async def test_without_a_kernel_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(GuestImageError, match="linux-image-cloud-amd64"):
        await build(tmp_path / "image", roots=[tmp_path])
    assert not (tmp_path / "image").exists()


async def test_a_dynamic_busybox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "busybox").write_bytes(elf(1, 3))
    with pytest.raises(GuestImageError, match="busybox-static"):
        await build(tmp_path / "image", busybox=tmp_path / "busybox")


async def test_building_again_changes_nothing(tmp_path: Path) -> None:
    first = await build(tmp_path)
    before = statuses(tmp_path)
    assert await build(tmp_path) == first
    assert statuses(tmp_path) == before
    assert before.keys() == {"initramfs", "vmlinuz"}
    assert all(stat.S_IMODE(mode) == 0o644 for mode, _ in before.values())


def statuses(directory: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mode, path.stat().st_mtime_ns) for path in directory.iterdir()}


@pytest.mark.slow
async def test_a_damaged_image_is_mended(tmp_path: Path) -> None:
    image = await build(tmp_path)
    whole = image.ramdisk.read_bytes()
    image.ramdisk.write_bytes(whole[:1000])
    await build(tmp_path)
    assert image.ramdisk.read_bytes() == whole


def test_every_module_that_is_listed_is_packed() -> None:
    kernel = find_kernel(default_roots())
    assert kernel is not None
    contents = {entry.path: entry.content for entry in ramdisk_entries(kernel, b"", ["sh", "poweroff"])}
    for key in MODULES:
        for name in contents[f"lib/modules/{key}"].decode().split():
            assert contents[f"lib/modules/{name}.ko"].startswith(b"\x7fELF")
    assert "virtio_blk" in contents["lib/modules/d00000002"].decode().split()
    assert len(contents) == len(ramdisk_entries(kernel, b"", ["sh", "poweroff"]))
