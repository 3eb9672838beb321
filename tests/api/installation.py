"""An installer for tests: Debian's kernel, busybox, and a first process that installs Tiny Linux on a disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from domzero.host import process
from domzero.host.guest_image import cpio, default_roots, find_kernel
from domzero.host.guest_image.build import BUSYBOX_PATHS, ramdisk_entries

SAYS = "installer: "
"""What begins each line that the installer says."""
INSTALLED = "installed"
"""The host name of what was installed, which its login shows."""

_FIRST_PROCESS = f"""#!/bin/sh
export PATH=/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
tiny-load base
for alias in /sys/bus/virtio/devices/*/modalias; do tiny-load "$(cat "$alias")"; done
echo "{SAYS}told $(cat /proc/cmdline)"
case $(cat /proc/cmdline) in *install.disk=*) ;; *) while :; do sleep 60; done ;; esac
printf 'o\\nn\\np\\n1\\n2048\\n\\nw\\n' | fdisk /dev/vda >/dev/null 2>&1
mke2fs /dev/vda1 >/dev/null
mkdir -p /mnt
mount -t ext4 /dev/vda1 /mnt
mkdir -p /mnt/boot/grub
cp /payload/* /mnt/boot
cat >/mnt/boot/grub/grub.cfg <<END
set timeout=1
menuentry "{INSTALLED.title()}" {{
    linux /boot/vmlinuz root=/dev/xvda1 console=hvc0 quiet mitigations=off tsc=reliable tiny.hostname={INSTALLED}
    initrd /boot/initrd.img
}}
END
umount /mnt
sync
echo "{SAYS}done"
busybox reboot -f
"""


@dataclass(frozen=True, slots=True)
class InstallerImage:
    """What a repository offers to boot."""

    kernel: bytes
    ramdisk: bytes


async def build_installer() -> InstallerImage:
    """The installer, whose payload is Tiny Linux."""
    kernel = await asyncio.to_thread(find_kernel, default_roots())
    assert kernel is not None
    busybox = next(path for path in BUSYBOX_PATHS if path.exists())
    applets = (await process.run([busybox, "--list"])).stdout.decode().split()
    system = ramdisk_entries(kernel, busybox.read_bytes(), applets)
    image = kernel.image.read_bytes()
    own = [
        *(entry for entry in system if entry.path != "init"),
        cpio.file("init", _FIRST_PROCESS.encode(), 0o755),
        cpio.directory("payload"),
        cpio.file("payload/vmlinuz", image),
        cpio.file("payload/initrd.img", cpio.archive(system)),
    ]
    return InstallerImage(image, cpio.archive(own))


SERIAL_PORT = 0x3F8


def boot_sector(words: bytes) -> bytes:
    """A boot loader for a BIOS that says the words on the first serial line, and halts.

    For each letter: mov dx, port; mov al, letter; out dx, al. Then cli; hlt.
    """
    code = b"\xba" + SERIAL_PORT.to_bytes(2, "little")
    code += b"".join(b"\xb0" + bytes([letter]) + b"\xee" for letter in words) + b"\xfa\xf4"
    assert len(code) <= 440
    return code.ljust(510, b"\0") + b"\x55\xaa"
