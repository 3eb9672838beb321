"""Making Tiny Linux's kernel and ramdisk."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path, PurePosixPath

from domzero.host import process
from domzero.host.guest_image import cpio
from domzero.host.guest_image.kernel import (
    WHAT_TO_INSTALL,
    GuestImageError,
    GuestKernel,
    default_roots,
    find_kernel,
    load_order,
    module_name,
    read_module,
)

ARGUMENTS = "console=ttyS0 quiet mitigations=off random.trust_cpu=on tsc=reliable no_timer_check"
"""Kernel arguments that boot quickly and put the console on the first serial line."""

MODULES = {
    "base": ("virtio_pci", "ext4", "button", "evdev", "pvpanic_mmio", "pvpanic_pci"),
    "d00000001": ("virtio_net",),
    "d00000002": ("virtio_blk", "isofs"),
    "d00000003": ("virtio_console",),
    "d00000004": ("virtio_rng",),
    "d00000005": ("virtio_balloon",),
    "d00000008": ("virtio_scsi", "sd_mod", "sr_mod", "isofs"),
}
"""What the guest loads: `base` at boot, the others when it meets a virtio device of that number (VIRTIO 1.2, section
5), spelt as in the kernel's `modalias`."""

BUSYBOX_PATHS = (Path("/usr/bin/busybox"), Path("/bin/busybox"))

DIRECTORIES = (
    *("bin", "data", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "lib/modules", "proc"),
    *("root", "run", "sbin", "sys", "tmp", "var", "var/run"),
)

SCRIPTS = {
    "init": "init",
    "load": "sbin/tiny-load",
    "power": "etc/acpi/PWRF/00000080",
    "boot": "sbin/tiny-boot",
    "say": "sbin/tiny-say",
    "hotplug": "sbin/tiny-hotplug",
    "dhcp": "sbin/tiny-dhcp",
    "stop": "sbin/tiny-stop",
}
"""Programs of our own, by their file beside this module, and where the guest has them."""

SETTINGS = {"inittab": "etc/inittab", "passwd": "etc/passwd", "group": "etc/group", "profile": "etc/profile"}

ELF_HEADER = struct.Struct("<4s12xHHIQQQIHHH")
ELF_SEGMENT_TYPE = struct.Struct("<I")
ELF_INTERPRETER = 3


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What a virtual machine boots: `KernelBoot(kernel, ramdisk, arguments)`. Needs 128 MiB of memory."""

    kernel: Path
    ramdisk: Path
    arguments: str = ARGUMENTS
    version: str = ""
    """The kernel's version."""


async def build(directory: Path, *, roots: Sequence[Path] | None = None, busybox: Path | None = None) -> GuestImage:
    """Write `vmlinuz` and `initramfs` into the directory (made where it is missing) and say where they are.

    The files are a function of the kernel, its modules and busybox. They are readable by everyone (a virtual machine's
    user opens them) and are replaced as a whole, only when they differ; so this is cheap to repeat, and the paths are
    fit to be stored. `roots` are searched for a kernel (`default_roots` where None). Raises `GuestImageError`.
    """
    kernel = await asyncio.to_thread(find_kernel, default_roots() if roots is None else roots)
    if kernel is None:
        raise GuestImageError(f"No Linux kernel was found. {WHAT_TO_INSTALL}.")
    program = await asyncio.to_thread(_static_busybox, BUSYBOX_PATHS if busybox is None else (busybox,))
    applets = await _applets(program)
    try:
        return await asyncio.to_thread(_write, directory, kernel, program, applets)
    except OSError as error:
        raise GuestImageError(f"{error.filename}: {error.strerror}") from error


def _static_busybox(candidates: Sequence[Path]) -> Path:
    for path in candidates:
        if path.is_file() and is_static_executable(path.read_bytes()):
            return path
    raise GuestImageError(f"No statically linked busybox was found. {WHAT_TO_INSTALL}.")


def is_static_executable(data: bytes) -> bool:
    """Whether this is a 64-bit little-endian ELF program that needs no program interpreter (elf(5), PT_INTERP)."""
    if len(data) < ELF_HEADER.size or data[:6] != b"\x7fELF\x02\x01":
        return False
    _, _, _, _, _, offset, _, _, _, size, count = ELF_HEADER.unpack_from(data)
    starts = range(offset, offset + size * count, size) if size else ()
    if not starts or starts[-1] + ELF_SEGMENT_TYPE.size > len(data):
        return False
    return all(ELF_SEGMENT_TYPE.unpack_from(data, start) != (ELF_INTERPRETER,) for start in starts)


async def _applets(busybox: Path) -> list[str]:
    try:
        listed = await process.run([busybox, "--list"])
    except process.ProcessError as error:
        raise GuestImageError(f"{busybox} does not list its programs: {error}") from error
    return listed.stdout.decode().split()


def _write(directory: Path, kernel: GuestKernel, busybox: Path, applets: Sequence[str]) -> GuestImage:
    directory.mkdir(parents=True, exist_ok=True)
    image = GuestImage(directory / "vmlinuz", directory / "initramfs", version=kernel.version)
    _replace(image.kernel, kernel.image.read_bytes())
    _replace(image.ramdisk, cpio.archive(ramdisk_entries(kernel, busybox.read_bytes(), applets)))
    return image


def ramdisk_entries(kernel: GuestKernel, busybox: bytes, applets: Sequence[str]) -> list[cpio.Entry]:
    """Everything in the guest's first file system."""
    own = {PurePosixPath(target).name for target in SCRIPTS.values()} | {"busybox", "poweroff", "reboot", "halt"}
    return [
        *(cpio.directory(path) for path in DIRECTORIES),
        cpio.character_device("dev/console", 5, 1),
        cpio.file("bin/busybox", busybox, 0o755),
        *(cpio.symlink(f"bin/{name}", "busybox") for name in sorted(set(applets) - own)),
        cpio.symlink("sbin/init", "../bin/busybox"),
        *(cpio.symlink(f"sbin/{name}", "tiny-stop") for name in ("poweroff", "reboot", "halt")),
        *(cpio.file(target, _own_file(name), 0o755) for name, target in SCRIPTS.items()),
        *(cpio.file(target, _own_file(name)) for name, target in SETTINGS.items()),
        *module_entries(kernel),
    ]


def module_entries(kernel: GuestKernel) -> list[cpio.Entry]:
    """Every module that `MODULES` asks for and this kernel has, and one list of files to load for each of its keys."""
    dependencies = (kernel.modules / "modules.dep").read_text()
    orders = {key: load_order(dependencies, wanted) for key, wanted in MODULES.items()}
    contents = {module_name(path): read_module(kernel.modules / path) for path in chain.from_iterable(orders.values())}
    lists = {key: "".join(f"{module_name(path)}\n" for path in order) for key, order in orders.items()}
    return [
        *(cpio.file(f"lib/modules/{name}.ko", content) for name, content in contents.items()),
        *(cpio.file(f"lib/modules/{key}", text.encode()) for key, text in lists.items()),
    ]


def _own_file(name: str) -> bytes:
    return (files("domzero.host.guest_image") / "files" / name).read_bytes()


def _replace(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        fresh.write_bytes(content)
        fresh.chmod(0o644)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
