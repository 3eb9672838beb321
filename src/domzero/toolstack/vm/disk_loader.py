"""Machines that boot what is on their disk, as pygrub would: by the disk's own boot loader where it has one.

A machine here is a whole computer: when its disk begins with a boot loader, firmware starts that, and the host need not
read what a guest wrote. Where there is none, as Xen's guests needed none, or `PV_bootloader_args` asks for something,
pygrub looks for the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domzero.engine.errors import ApiError
from domzero.host.bootloader.protocol import LoaderError, LoaderOptions
from domzero.host.contents.protocol import ContentError
from domzero.host.hypervisor.spec import DiskKind, DiskSource, DiskSpec
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.install.loader_options import for_virtio, loader_options
from domzero.toolstack.vm.install.plan import Plan
from domzero.toolstack.vm.installer import discard, graphics_card, kernel_fields, places
from domzero.toolstack.vm.specification import DISK_BOOTLOADERS, is_hvm

SECTOR = 512
BOOT_CODE = 440
"""Bytes of a disk's first sector that hold a loader's code; the partition table and a signature follow."""
SIGNATURE = b"\x55\xaa"


def has_boot_code(sector: bytes) -> bool:
    """Whether a disk's first 512 bytes hold code that a BIOS runs."""
    return sector[SECTOR - 2 : SECTOR] == SIGNATURE and any(sector[:BOOT_CODE])


def boot_disk(disks: Sequence[DiskSpec]) -> DiskSource | None:
    """What a BIOS would boot: the first disk that is marked bootable, else the first disk."""
    hard = [disk for disk in disks if disk.kind is DiskKind.DISK and disk.source is not None]
    return min(hard, key=lambda disk: (not disk.bootable, disk.slot)).source if hard else None


async def kernel_on_disk(stack: Stack, vm: Ref, record: Mapping[str, Any], disks: Sequence[DiskSpec]) -> dict[str, Any]:
    """Fields of a machine that boots the kernel found on its disk; none where firmware boots it.

    `record` is as the machine boots. Raises BOOTLOADER_FAILED.
    """
    loader = stack.disk_loader
    if loader is None or is_hvm(record) or record["PV_bootloader"] not in DISK_BOOTLOADERS:
        return {}
    disk = boot_disk(disks)
    if disk is None:
        raise ApiError("BOOTLOADER_FAILED", vm, "the machine has no disk to boot from")
    try:
        options = loader_options(record["PV_bootloader_args"], record["PV_args"])
        if not record["PV_bootloader_args"].strip() and await _boots_itself(stack, disk):
            return {}
        kernel, ramdisk = await places(stack, record["uuid"])
        found = await loader.find(disk, options, kernel, ramdisk)
    except BaseException as error:
        await discard(stack, record["uuid"])
        if isinstance(error, LoaderError | ContentError | ValueError):
            raise ApiError("BOOTLOADER_FAILED", vm, str(error)) from error
        raise
    positions = [drive.slot for drive in disks if drive.kind is DiskKind.DISK]
    fields = kernel_fields(found.kernel, found.ramdisk, for_virtio(found.arguments, positions))
    return {**fields, "PV_legacy_args": record["PV_legacy_args"]}


async def kernel_on_disc(
    stack: Stack, vm: Ref, record: Mapping[str, Any], plan: Plan | None, disks: Sequence[DiskSpec]
) -> dict[str, Any]:
    """Fields of a machine that boots the installer's kernel from the disc in its drive.

    None where the plan wants no disc, or firmware is to boot it: because there is no installer that we know where to
    find, and nothing was asked of it that its own loader would not know. Raises BOOTLOADER_FAILED.
    """
    discs = [drive.source for drive in disks if drive.kind is DiskKind.CD and drive.source is not None]
    if plan is None or not plan.looks_at_disc or not discs or stack.disk_loader is None:
        return {}
    kernel, ramdisk = await places(stack, record["uuid"])
    why = ""
    for tree in plan.trees:
        options = LoaderOptions(kernel=f"/{tree.kernel}", ramdisk=f"/{tree.ramdisk}", offset=0)
        try:
            found = await stack.disk_loader.find(discs[0], options, kernel, ramdisk)
        except LoaderError as error:
            why = str(error)
            continue
        fields = kernel_fields(found.kernel, found.ramdisk, plan.arguments)
        return {**fields, **(graphics_card(record) if plan.on_screen else {})}
    await discard(stack, record["uuid"])
    if plan.insists:
        raise ApiError("BOOTLOADER_FAILED", vm, f"the installer was not found on the machine's disc: {why}")
    return {}


async def _boots_itself(stack: Stack, disk: DiskSource) -> bool:
    async with stack.contents.reading(disk) as reader:
        return has_boot_code(bytes(await reader.read(0, min(SECTOR, reader.size))))
