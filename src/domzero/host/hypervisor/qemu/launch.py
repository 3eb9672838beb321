"""From a specification to a connected, not yet running QEMU process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from domzero.host.confinement import deprived
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import limits, names, slots
from domzero.host.hypervisor.qemu.arguments import Descriptors, Launch, command_line, memory_size
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.files import listen
from domzero.host.hypervisor.qemu.images import OpenedImage, open_image, prepared_chain
from domzero.host.hypervisor.qemu.process import start_time
from domzero.host.hypervisor.qemu.scheduling import schedule_at_start
from domzero.host.hypervisor.spec import DiskKind, DiskSpec, FirmwareBoot, MachineSpec, TapBackend, UserBackend
from domzero.host.process import ProcessError, spawn_detached

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
"""linux/if_tun.h"""

UEFI_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
UEFI_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
RESOLVER = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Host:
    """What was found out about this machine."""

    binary: str
    image_tool: str
    version: tuple[int, ...]
    version_text: str
    accelerator: str
    accelerator_reason: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class SavedMachine:
    """What a saved image needs the new process to be like."""

    machine: str
    memory: int
    vcpus: int
    ports: int = names.PORTS
    queues: int = 0
    """See `Handle.queues`."""


async def launch(
    spec: MachineSpec, domain: Domain, host: Host, *, now: datetime, timeout: float, saved: SavedMachine | None = None
) -> None:
    """Start the domain's process and connect to it; the guest does not run yet.

    The domain's directory exists. Raises `HypervisorError`; the caller then discards the domain.
    """
    check(spec)
    with ExitStack() as opened:
        images, domain.next_number = await open_images(spec.disks, host.image_tool, opened)
        plan = _plan(spec, domain, host, images, opened, now, saved)
        log = os.open(domain.files.process_log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        opened.callback(os.close, log)
        argv = [*(() if plan.uid is None else deprived()), *command_line(plan)]
        try:
            pid = spawn_detached(argv, output=log, pass_fds=_passed(plan))
        except ProcessError as error:
            raise HypervisorError(str(error)) from error
        domain.watch(pid)
    started = replace(domain.handle, pid=pid, start_time=start_time(pid), accelerator=host.accelerator)
    domain.remember(replace(started, processors_started=plan.spec.vcpus, queues=plan.queues))
    await domain.connect(timeout)
    for image in images.values():
        await slots.forget_secrets(domain, image)
    await limits.set_all(domain, spec.disks)
    await schedule_at_start(domain, spec.scheduling)


def check(spec: MachineSpec) -> None:
    """Refuse a specification that has no place on the board. Raises `HypervisorError`."""
    if spec.domid <= 0 or spec.memory <= 0 or not 1 <= spec.vcpus <= spec.vcpus_max:
        raise HypervisorError("a machine needs a domid, memory and processors")
    for kind, taken, valid in (
        ("disk", [disk.slot for disk in spec.disks], names.DISK_SLOTS),
        ("network card", [nic.slot for nic in spec.nics], names.NIC_SLOTS),
    ):
        if len(set(taken)) != len(taken) or not set(taken) <= set(valid):
            raise HypervisorError(f"each {kind} needs a slot of its own from {valid.start} to {valid.stop - 1}")
    for disk in spec.disks:
        limits.check(disk.limits)


async def open_images(
    disks: Sequence[DiskSpec], image_tool: str, opened: ExitStack
) -> tuple[dict[int, OpenedImage], int]:
    """Open every disk's files, by slot, which `opened` closes; and the first number no layer has.

    Raises `HypervisorError`.
    """
    filled = [(disk, disk.source) for disk in disks if disk.source is not None]
    chains = await asyncio.gather(*(prepared_chain(source, image_tool) for _, source in filled), return_exceptions=True)
    images: dict[int, OpenedImage] = {}
    number = 1
    for (disk, _), chain in zip(filled, chains, strict=True):
        if isinstance(chain, BaseException):
            raise chain
        images[disk.slot] = open_image(chain, disk.slot, number, writable=is_writable(disk))
        opened.callback(images[disk.slot].close)
        number += len(chain)
    return images, number


def is_writable(disk: DiskSpec) -> bool:
    """Whether the guest may write: a CD never."""
    return disk.kind is DiskKind.DISK and not disk.read_only


def open_tap(tap: TapBackend) -> int:
    """A descriptor of an existing tap device, the caller's to close. Raises `HypervisorError`.

    Virtio headers, which carry what a guest left undone, are there where the other side understands them.
    """
    interface = tap.interface
    headers = IFF_VNET_HDR if tap.offloads else 0
    if not (Path("/sys/class/net") / interface).exists() or "/" in interface:
        raise HypervisorError(f"there is no tap device {interface}")
    fd = -1
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        request = struct.pack("16sH22x", os.fsencode(interface), IFF_TAP | IFF_NO_PI | headers)
        fcntl.ioctl(fd, TUNSETIFF, request)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise HypervisorError(f"tap device {interface}: {error.strerror}") from error
    return fd


def _plan(
    spec: MachineSpec,
    domain: Domain,
    host: Host,
    images: dict[int, OpenedImage],
    opened: ExitStack,
    now: datetime,
    saved: SavedMachine | None,
) -> Launch:
    files = domain.files
    taps = {}
    for nic in spec.nics:
        if isinstance(nic.backend, TapBackend):
            taps[nic.slot] = open_tap(nic.backend)
            opened.callback(os.close, taps[nic.slot])
    if domain.handle.uid is not None and any(isinstance(nic.backend, UserBackend) for nic in spec.nics):
        files.give_resolver(RESOLVER)
    sockets = [
        opened.enter_context(listen(path)).fileno()
        for path in (files.monitor_socket, files.serial_socket, files.guest_socket, files.tools_socket)
    ]
    code, variables = _firmware(spec, files.directory)
    return Launch(
        spec=spec if saved is None else replace(spec, vcpus=saved.vcpus),
        files=files,
        binary=host.binary,
        accelerator=host.accelerator,
        machine="q35" if saved is None else saved.machine,
        memory=memory_size(spec.memory, host.accelerator, host.version) if saved is None else saved.memory,
        uid=domain.handle.uid,
        descriptors=Descriptors(sockets[0], sockets[1], sockets[2], sockets[3], taps),
        images=images,
        now=now,
        ports=names.PORTS if saved is None else saved.ports,
        queues=spec.vcpus if saved is None else saved.queues,
        incoming=saved is not None,
        firmware_code=code,
        firmware_variables=variables,
    )


def _firmware(spec: MachineSpec, directory: Path) -> tuple[Path | None, Path | None]:
    if not (isinstance(spec.boot, FirmwareBoot) and spec.boot.uefi):
        return None, None
    if not (UEFI_CODE.is_file() and UEFI_VARIABLES.is_file()):
        raise HypervisorError(f"UEFI firmware is not installed ({UEFI_CODE})")
    variables = spec.boot.variables or directory / "variables.fd"
    if not variables.exists():
        partial = variables.with_suffix(".partial")
        shutil.copyfile(UEFI_VARIABLES, partial)
        partial.chmod(0o600)
        partial.replace(variables)
    return UEFI_CODE, variables


def _passed(plan: Launch) -> list[int]:
    listening = plan.descriptors
    files = [fd for image in plan.images.values() for fd in image.fds]
    return [listening.monitor, listening.serial, listening.guest, listening.tools, *listening.taps.values(), *files]
