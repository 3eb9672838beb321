"""How much of the host's disks a domain's drives may have.

Rates are QEMU's own throttling, a device each. The kernel's classes and levels belong to threads (ioprio_set(2)); those
that QEMU starts later inherit them. What each drive asked for is in the domain's handle: QEMU forgets the rates of a
drive without a medium and never knew the classes.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.process import threads
from domzero.host.hypervisor.qemu.slots import drive
from domzero.host.hypervisor.spec import DiskLimits, DiskSpec, IoClass

log = logging.getLogger(__name__)

RATE_LIMIT = 10**15
"""QEMU's highest rate (throttle.h)."""
CLASSES = {IoClass.REAL_TIME: 1, IoClass.BEST_EFFORT: 2, IoClass.IDLE: 3}
"""linux/ioprio.h; 0 is none, where the kernel goes by the thread's nice value."""
CLASS_SHIFT = 13
WHO_THREAD = 1
SYSTEM_CALLS = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "loongarch64": 30, "ppc64le": 273, "s390x": 282}
"""ioprio_set's number; the C library has no function for it."""


class PriorityRefusedError(HypervisorError):
    """The kernel does not let the daemon set a class or level, or there is no telling how."""


def check(limits: DiskLimits | None) -> None:
    """Raises `HypervisorError` for what neither QEMU nor the kernel can do."""
    if limits is None:
        return
    for rate in (limits.bytes_per_second, limits.operations_per_second):
        if not 0 <= rate <= RATE_LIMIT:
            raise HypervisorError(f"{rate} a second is no limit for a disk: 0 (none) to {RATE_LIMIT} is possible")
    if not 0 <= limits.priority <= 7:
        raise HypervisorError(f"{limits.priority} is no disk priority: 0 (first) to 7 (last) is possible")


def throttle(device: str, limits: DiskLimits) -> dict[str, object]:
    """The arguments of `block_set_io_throttle` for a device's path."""
    return {
        "id": device,
        "bps": limits.bytes_per_second,
        "bps_rd": 0,
        "bps_wr": 0,
        "iops": limits.operations_per_second,
        "iops_rd": 0,
        "iops_wr": 0,
    }


def best(asked: Iterable[DiskLimits]) -> tuple[int, int]:
    """Class (the kernel's number) and level that a domain gets from its drives'; (0, 0) where none asks."""
    wanted = [
        (CLASSES[limits.io_class], 0 if limits.io_class is IoClass.IDLE else limits.priority)
        for limits in asked
        if limits.io_class is not None
    ]
    return min(wanted, default=(0, 0))


def record(limits: DiskLimits) -> dict[str, Any]:
    """Limits as JSON."""
    return {**asdict(limits), "io_class": None if limits.io_class is None else limits.io_class.value}


def from_record(content: dict[str, Any]) -> DiskLimits:
    """The limits of `record`."""
    io_class = content["io_class"]
    return DiskLimits(**{**content, "io_class": None if io_class is None else IoClass(io_class)})


async def set_all(domain: Domain, disks: Iterable[DiskSpec]) -> None:
    """Apply the limits of disks a domain was given with. Raises `HypervisorError`.

    A host that does not let the daemon set priorities is no reason not to run a machine: that is logged.
    """
    for disk in disks:
        if disk.limits is None:
            continue
        try:
            await limit_disk(domain, disk.slot, disk.limits)
        except PriorityRefusedError as error:
            log.warning("domain %s has no disk priority: %s", domain.domid, error)
            await limit_disk(domain, disk.slot, replace(disk.limits, io_class=None))


async def limit_disk(domain: Domain, slot: int, limits: DiskLimits | None) -> None:
    """Set the limits of a drive, or take them away. Raises `HypervisorError`; then they are as they were."""
    check(limits)
    before = _asked(domain)
    device, medium = await drive(domain, slot)
    if medium is not None:
        await domain.monitor.command("block_set_io_throttle", throttle(device, limits or DiskLimits()))
    after = {other: found for other, found in before.items() if other != slot}
    if limits is not None:
        after[slot] = limits
    try:
        _prioritise(domain, best(before.values()), best(after.values()))
        _remember(domain, after)
    except BaseException:
        if medium is not None:
            await domain.monitor.command("block_set_io_throttle", throttle(device, before.get(slot, DiskLimits())))
        raise


async def renew(domain: Domain, slot: int) -> None:
    """Apply a drive's rates to the medium it was just given."""
    limits = _asked(domain).get(slot)
    device, medium = await drive(domain, slot)
    if limits is not None and medium is not None:
        await domain.monitor.command("block_set_io_throttle", throttle(device, limits))


def forget(domain: Domain, slot: int) -> None:
    """The drive is gone; from now on the others' priorities count. That it cannot be so is logged."""
    before = _asked(domain)
    after = {other: found for other, found in before.items() if other != slot}
    if after == before:
        return
    try:
        _prioritise(domain, best(before.values()), best(after.values()))
        _remember(domain, after)
    except HypervisorError as error:
        log.warning("domain %s keeps the disk priority it had: %s", domain.domid, error)


def _asked(domain: Domain) -> dict[int, DiskLimits]:
    return {int(slot): from_record(found) for slot, found in domain.handle.limits.items()}


def _remember(domain: Domain, asked: dict[int, DiskLimits]) -> None:
    try:
        domain.remember(replace(domain.handle, limits={str(slot): record(found) for slot, found in asked.items()}))
    except OSError as error:
        raise HypervisorError(f"domain {domain.domid}: {error}") from error


def _prioritise(domain: Domain, before: tuple[int, int], after: tuple[int, int]) -> None:
    if before != after:
        set_priority(domain.pid, *after)


def set_priority(pid: int, io_class: int, level: int) -> None:
    """Give every thread of a process a class and a level. Raises `PriorityRefusedError`.

    A thread that starts meanwhile inherits from one of the others, so the list is read until it has nothing new.
    """
    number = SYSTEM_CALLS.get(platform.machine())
    if number is None:
        raise PriorityRefusedError(f"disk priorities are not known for {platform.machine()} processors")
    library = ctypes.CDLL(None, use_errno=True)
    done: set[int] = set()
    while new := set(threads(pid)) - done:
        for thread in new:
            if library.syscall(number, WHO_THREAD, thread, io_class << CLASS_SHIFT | level) != 0:
                _check_errno(ctypes.get_errno())
        done |= new


def _check_errno(error: int) -> None:
    if error != errno.ESRCH:  # a thread that ended needs no priority
        raise PriorityRefusedError(f"the host does not let the daemon set disk priorities: {os.strerror(error)}")
