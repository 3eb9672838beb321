"""The command line of a domain's process: pure functions from values to arguments.

Options are explained in QEMU's manual (qemu-system-x86_64(1)).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from domzero.host.hypervisor.qemu import devices, names
from domzero.host.hypervisor.qemu.files import DomainFiles
from domzero.host.hypervisor.qemu.images import OpenedImage
from domzero.host.hypervisor.qemu.remote import secret_from
from domzero.host.hypervisor.spec import (
    DiskKind,
    FirmwareBoot,
    KernelBoot,
    MachineSpec,
    NicSpec,
    TapBackend,
)

KIB = 1024
DIRTY_UNIT = 256 * KIB
COHERENT_DIRTY_TRACKING = (9, 0)
"""QEMU before this version can lose a busy TCG guest's writes when it saves or migrates (commit 03bfc2188f06)."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Numbers of the descriptors the process is started with."""

    monitor: int
    serial: int
    guest: int
    tools: int
    taps: dict[int, int]
    """By network card slot."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a command line is made of."""

    spec: MachineSpec
    files: DomainFiles
    binary: str
    accelerator: str
    machine: str
    """A machine type, `q35` for the newest."""
    memory: int
    """Bytes, see `memory_size`."""
    uid: int | None
    """The user to become after everything is opened; None stays who we are."""
    descriptors: Descriptors
    images: dict[int, OpenedImage]
    """By disk slot; an empty CD drive has none."""
    now: datetime
    ports: int = names.PORTS
    """How many ports to the store the guest has."""
    queues: int = 0
    """See `Handle.queues`."""
    incoming: bool = False
    """Whether memory comes from a saved image."""
    firmware_code: Path | None = None
    firmware_variables: Path | None = None


def command_line(launch: Launch) -> list[str]:
    """The whole command line, the program first."""
    return [
        launch.binary,
        *identity(launch.spec),
        *machine(launch),
        *processor(launch),
        *("-m", f"size={launch.memory // KIB}K"),
        *clock(launch.spec, launch.now),
        *firmware(launch),
        *boot(launch.spec),
        *lifecycle(launch),
        *confinement(launch),
        *channels(launch),
        *descriptor_sets(launch.images.values()),
        *passwords(launch.images.values()),
        *hardware(launch),
    ]


def identity(spec: MachineSpec) -> list[str]:
    """Who it is. The machine's own name stays out: it is a stranger's text, and every local user can read arguments."""
    return ["-name", f"guest=domzero-{spec.domid},debug-threads=on", "-uuid", spec.uuid]


def machine(launch: Launch) -> list[str]:
    """The board. Nothing comes from configuration files or defaults."""
    options = f"{launch.machine},vmport=off,dump-guest-core=off"
    if launch.firmware_code is not None:
        options += ",pflash0=firmware-code,pflash1=firmware-variables"
    accelerator = "tcg,thread=multi,tb-size=64" if launch.accelerator == "tcg" else launch.accelerator
    return ["-no-user-config", "-nodefaults", "-machine", options, "-accel", accelerator]


def processor(launch: Launch) -> list[str]:
    """Processor model and topology; those between `vcpus` and `vcpus_max` can be plugged later."""
    spec = launch.spec
    cores = cores_per_socket(spec)
    model = "max,la57=off" if launch.accelerator == "tcg" else "host"
    if launch.accelerator == "kvm" and spec.platform.get("viridian") == "true":
        model += ",hv-relaxed=on,hv-vapic=on,hv-time=on,hv-spinlocks=0x1fff"
    topology = f"sockets={spec.vcpus_max // cores},cores={cores},threads=1"
    return ["-cpu", model, "-smp", f"cpus={spec.vcpus},maxcpus={spec.vcpus_max},{topology}"]


def cores_per_socket(spec: MachineSpec) -> int:
    """What the platform flag asks for, 1 where it is absent, no number, or no divisor of the processors."""
    asked = spec.platform.get("cores-per-socket", "1")
    cores = int(asked) if asked.isdecimal() and len(asked) < 10 else 1
    return cores if cores > 0 and spec.vcpus_max % cores == 0 else 1


def memory_size(asked: int, accelerator: str, version: Sequence[int]) -> int:
    """Bytes of memory to build, a multiple of QEMU's 8 KiB and at most `asked`.

    Under TCG before QEMU 9.0 never a multiple of 256 KiB: then QEMU tracks dirty memory page by page, which is right,
    instead of word by word, which forgets to watch pages again.
    """
    size = asked - asked % (8 * KIB)
    if accelerator == "tcg" and tuple(version[:2]) < COHERENT_DIRTY_TRACKING and size % DIRTY_UNIT == 0:
        size -= 8 * KIB
    return size


def clock(spec: MachineSpec, now: datetime) -> list[str]:
    """The real-time clock, off UTC by the platform's `timeoffset` seconds."""
    try:
        offset = int(spec.platform.get("timeoffset", "0"))
        base = "utc" if offset == 0 else (now + timedelta(seconds=offset)).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError):
        base = "utc"
    return ["-rtc", f"base={base},clock=host"]


def firmware(launch: Launch) -> list[str]:
    """UEFI's code and variable store, both opened before rights are dropped. BIOS needs nothing."""
    if launch.firmware_code is None or launch.firmware_variables is None:
        return []
    parts = (("firmware-code", launch.firmware_code, True), ("firmware-variables", launch.firmware_variables, False))
    arguments: list[str] = []
    for node, path, read_only in parts:
        file = {"driver": "file", "filename": str(path), "read-only": read_only}
        value = {"driver": "raw", "node-name": node, "read-only": read_only, "file": file}
        arguments += ["-blockdev", json.dumps(value)]
    return arguments


def boot(spec: MachineSpec) -> list[str]:
    """A kernel, or firmware that tries what has a boot index and nothing else."""
    if isinstance(spec.boot, FirmwareBoot):
        return ["-boot", "strict=on"]
    arguments = ["-kernel", str(spec.boot.kernel), "-append", spec.boot.arguments]
    return arguments if spec.boot.ramdisk is None else [*arguments, "-initrd", str(spec.boot.ramdisk)]


def boot_indexes(spec: MachineSpec) -> dict[str, int]:
    """The boot index of each device (by qdev id) that takes part in booting, from 1 on.

    `c` tries the disks, those marked bootable first; `d` the CD drives; `n` the cards; each by slot.
    """
    if isinstance(spec.boot, KernelBoot):
        return {}
    disks = sorted((disk for disk in spec.disks if disk.kind is DiskKind.DISK), key=lambda d: (not d.bootable, d.slot))
    drives = sorted((disk for disk in spec.disks if disk.kind is DiskKind.CD), key=lambda d: d.slot)
    candidates = {
        "c": [names.disk(disk.slot) for disk in disks],
        "d": [names.disk(drive.slot) for drive in drives],
        "n": [names.nic(slot) for slot in sorted(nic.slot for nic in spec.nics)],
    }
    order = [device for letter in dict.fromkeys(spec.boot.order) for device in candidates.get(letter, ())]
    return {device: index for index, device in enumerate(order, 1)}


def lifecycle(launch: Launch) -> list[str]:
    """The process waits to be let run, and ends when its guest ends, saying why in its SHUTDOWN event.

    A guest that panicked is paused instead where it is to be kept.
    """
    panic = panic_action(launch.spec.keep_crashed)
    arguments = ["-S", "-action", f"reboot=shutdown,shutdown=poweroff,panic={panic}"]
    return [*arguments, "-incoming", "defer"] if launch.incoming else arguments


def panic_action(keep: bool) -> str:
    """What QEMU does about a guest that panics."""
    return "pause" if keep else "shutdown"


def confinement(launch: Launch) -> list[str]:
    """System calls filtered; with a user of its own, an empty root and no rights.

    `elevateprivileges=deny` would forbid QEMU's own change of user; after that change there is nothing to elevate: the
    filter sets no_new_privs.
    """
    deny = "on,obsolete=deny,spawn=deny,resourcecontrol=deny"
    if launch.uid is None:
        return ["-sandbox", f"{deny},elevateprivileges=deny"]
    return ["-sandbox", deny, "-runas", f"{launch.uid}:{launch.uid}", "-chroot", str(launch.files.root)]


def channels(launch: Launch) -> list[str]:
    """Control, serial line, guest channels on sockets that listen already; VNC on one that QEMU makes."""
    listening = launch.descriptors
    log = escape(launch.files.serial_log)
    return [
        *("-chardev", f"socket,id=monitor,fd={listening.monitor},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=serial,fd={listening.serial},server=on,wait=off,logfile={log},logappend=on"),
        *("-chardev", f"socket,id=guest,fd={listening.guest},server=on,wait=off"),
        *("-chardev", f"socket,id=tools,fd={listening.tools},server=on,wait=off"),
        *("-vnc", vnc_address(launch.files)),
        *("-object", json.dumps({"qom-type": "rng-random", "id": "entropy", "filename": "/dev/urandom"})),
    ]


def vnc_address(files: DomainFiles) -> str:
    """The display's address: also how a process is known that nobody wrote down.

    A viewer that asks to be the only one is not heard: it would send the others away.
    """
    return f"unix:{escape(files.vnc_socket)},share=ignore"


def descriptor_sets(images: Iterable[OpenedImage]) -> list[str]:
    """Hand over every file of every disk."""
    arguments: list[str] = []
    for image in images:
        for descriptor in image.descriptors:
            arguments += ["-add-fd", f"fd={descriptor.fd},set={descriptor.set},opaque={descriptor.label}"]
    return arguments


def passwords(images: Iterable[OpenedImage]) -> list[str]:
    """Hand over what remote images are opened with: QEMU reads it from descriptors."""
    return [
        argument
        for image in images
        for secret in image.secrets
        for argument in ("-object", secret_from(secret.fd, secret.id))
    ]


def hardware(launch: Launch) -> list[str]:
    """Ports, fixed devices, disks and network cards."""
    spec = launch.spec
    indexes = boot_indexes(spec)
    arguments: list[str] = []
    for image in launch.images.values():
        arguments += ["-blockdev", json.dumps(image.blockdev)]
    for nic in spec.nics:
        arguments += ["-netdev", json.dumps(backend(nic, launch.descriptors.taps))]
    plugged = [
        *devices.sockets(),
        *devices.fixed_devices(launch.ports, launch.queues),
        *(
            devices.disk_device(
                disk, _node(launch.images, disk.slot), indexes.get(names.disk(disk.slot)), queues=launch.queues
            )
            for disk in spec.disks
        ),
        *(devices.nic_device(nic, indexes.get(names.nic(nic.slot))) for nic in spec.nics),
    ]
    for device in plugged:
        arguments += ["-device", json.dumps(device)]
    return arguments


def _node(images: dict[int, OpenedImage], slot: int) -> str | None:
    return images[slot].node if slot in images else None


def backend(nic: NicSpec, taps: dict[int, int]) -> devices.Device:
    """The network backend of a card at start."""
    if isinstance(nic.backend, TapBackend):
        return devices.tap_backend(nic.slot, str(taps[nic.slot]))
    return devices.user_backend(nic.slot)


def escape(value: str | Path) -> str:
    """A value for an option of the form `key=value,…`, where a comma is written twice."""
    return str(value).replace(",", ",,")
