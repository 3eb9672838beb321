"""Disks with and without something to boot, made by mke2fs(8) and by hand."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

SECTOR = 512
MIB = 1 << 20
KERNEL, RAMDISK = b"kernel" * 5000, b"ramdisk" * 5000
MENU = """\
set default="0"
menuentry 'First' {
    linux /boot/vmlinuz root=/dev/xvda1 ro console=hvc0
    initrd /boot/initrd.img
}
menuentry 'Second' {
    linux /boot/other root=/dev/xvda2
}
"""


def file_system(directory: Path, menu: str = MENU, *, kernel: bytes = KERNEL) -> Path:
    """An ext4 file system with a boot menu."""
    tree = directory / "tree"
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "boot/grub/grub.cfg").write_text(menu)
    (tree / "boot/vmlinuz").write_bytes(kernel)
    (tree / "boot/initrd.img").write_bytes(RAMDISK)
    (tree / "boot/other").write_bytes(b"other")
    path = directory / "file-system"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, path, "16M"], check=True, capture_output=True)
    return path


def partitioned(file_system: Path) -> Path:
    """The file system in the first partition of a disk without boot code."""
    path = file_system.with_name("disk")
    content = file_system.read_bytes()
    start = MIB // SECTOR
    entry = struct.pack("<B3sB3sII", 0x80, bytes(3), 0x83, bytes(3), start, len(content) // SECTOR)
    sector = (bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(sector + bytes(MIB - SECTOR) + content)
    return path
