"""Installers on the disc in a machine's drive, read by the real pygrub."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.finish import in_thread
from domzero.host.bootloader.pygrub import Pygrub
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskSource, DiskSpec
from domzero.host.process import run
from domzero.toolstack.vm.disk_loader import kernel_on_disc
from domzero.toolstack.vm.install.plan import plan_of
from tests.toolstack.vm.world import World, world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(
        None in (shutil.which("pygrub"), shutil.which("bwrap"), shutil.which("genisoimage")) or os.geteuid() != 0,
        reason="needs root, pygrub, bwrap and genisoimage (Debian: xen-utils-4.17, bubblewrap, genisoimage)",
    ),
]

USER = 0x7CFFFFF0


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as running:
        running.stack.disk_loader = Pygrub(tmp_path, USER)
        yield running


async def disc(directory: Path, kernel: str, ramdisk: str) -> DiskSpec:
    """A drive with a disc that holds these two files, with their names as content."""
    for name in (kernel, ramdisk):
        place = directory / "disc" / name
        await in_thread(place.parent.mkdir, parents=True, exist_ok=True)
        await in_thread(place.write_text, name)
    image = directory / "image.iso"
    await run(["genisoimage", "-quiet", "-R", "-o", image, directory / "disc"])
    return DiskSpec(3, DiskKind.CD, DiskSource(image, DiskFormat.RAW), read_only=True)


def content(path: str) -> str:
    return Path(path).read_text()


async def looked(host: World, drive: DiskSpec, config: dict[str, str]) -> dict[str, Any]:
    vm = await host.machine(
        PV_kernel="", PV_bootloader="eliloader", other_config={"install-repository": "cdrom", **config}
    )
    record = host.row("VM", vm)
    return await kernel_on_disc(host.stack, vm, record, plan_of(vm, record), [drive])


@pytest.mark.parametrize(
    ("distro", "kernel", "ramdisk"),
    [
        ("rhlike", "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"),
        ("debianlike", "install.amd/vmlinuz", "install.amd/initrd.gz"),
        ("ubuntulike", "casper/vmlinuz", "casper/initrd"),
        ("sleslike", "boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"),
    ],
)
async def test_the_installer_of_a_disc(host: World, tmp_path: Path, distro: str, kernel: str, ramdisk: str) -> None:
    drive = await disc(tmp_path, kernel, ramdisk)
    fields = await looked(host, drive, {"install-distro": distro, "install-args": "a=b", "install-vnc": "1"})
    assert [content(fields[name]) for name in ("PV_kernel", "PV_ramdisk")] == [kernel, ramdisk]
    assert "console=tty0 a=b" in fields["PV_args"]
    assert fields["platform"]["vga"] == "std"


async def test_a_disc_without_a_known_installer_is_left_to_firmware_unless_something_was_asked(
    host: World, tmp_path: Path
) -> None:
    drive = await disc(tmp_path, "live/vmlinuz", "live/initrd")
    assert await looked(host, drive, {"install-distro": "rhlike"}) == {}
    with pytest.raises(ApiError, match="BOOTLOADER_FAILED"):
        await looked(host, drive, {"install-distro": "rhlike", "install-args": "a=b"})
    assert not list((tmp_path / "guest").glob("*/*"))
