"""Every device as a plain value, the same for the command line (`-device`, `-blockdev`, `-netdev` take JSON) and for
hot-plug (`device_add`, `blockdev-add`, `netdev_add`).

Addresses are fixed: a guest finds each device in the same place in every boot, and a saved image fits a new process.
Bus map of `pcie.0`: 01 display, 02 and 03 the ports of the disks, 04 those of the network cards, from 05 on one device
each. Every disk and card sits behind a root port of its own, so that each can be plugged and unplugged alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from domzero.host.hypervisor.qemu import names
from domzero.host.hypervisor.spec import DiskKind, DiskSpec, NicSpec

Device = dict[str, object]

BALLOON_POLL_SECONDS = 10
STANDARD_MTU = 1500


def root_ports() -> Iterator[Device]:
    """A hot-plug port per disk slot and per network card slot, eight functions to a bus address."""
    for slot in names.DISK_SLOTS:
        yield _root_port(names.disk_port(slot), number=slot, address=2 + slot // 8, function=slot % 8)
    for slot in names.NIC_SLOTS:
        yield _root_port(names.nic_port(slot), number=len(names.DISK_SLOTS) + slot, address=4, function=slot)


def _root_port(port: str, *, number: int, address: int, function: int) -> Device:
    device: Device = {
        "driver": "pcie-root-port",
        "id": port,
        "bus": "pcie.0",
        "addr": f"{address:#x}.{function:#x}",
        "chassis": number + 1,
        "port": number,
    }
    return {**device, "multifunction": True} if function == 0 else device


def fixed_devices() -> Iterator[Device]:
    """What every machine has, from display and guest channel to the line on which a guest reports its panic."""
    yield {"driver": "VGA", "id": "vga", "bus": "pcie.0", "addr": "0x1"}
    yield {"driver": "virtio-serial-pci", "id": "channels", "bus": "pcie.0", "addr": "0x5"}
    yield {
        "driver": "virtserialport",
        "id": "guest-port",
        "bus": "channels.0",
        "nr": 1,
        "chardev": "guest",
        "name": names.GUEST_CHANNEL,
    }
    yield {
        "driver": "virtio-balloon-pci",
        "id": names.BALLOON,
        "bus": "pcie.0",
        "addr": "0x6",
        "deflate-on-oom": True,
        "guest-stats-polling-interval": BALLOON_POLL_SECONDS,
    }
    yield {"driver": "virtio-rng-pci", "id": "rng", "bus": "pcie.0", "addr": "0x7", "rng": "entropy"}
    yield {"driver": "virtio-scsi-pci", "id": names.SCSI_CONTROLLER, "bus": "pcie.0", "addr": "0x8"}
    yield {"driver": "qemu-xhci", "id": "usb", "bus": "pcie.0", "addr": "0x9"}
    yield {"driver": "usb-tablet", "id": "tablet", "bus": "usb.0", "port": "1"}
    yield {"driver": "isa-serial", "id": "serial-port", "chardev": "serial"}
    yield {"driver": "pvpanic", "id": "panic"}


def disk_device(disk: DiskSpec, node: str | None, boot_index: int | None = None) -> Device:
    """The device of a disk slot on block node `node`; None stands for an empty CD drive.

    CD drives are virtio-scsi: SeaBIOS and OVMF boot from it, and cloud kernels have its driver where they lack AHCI's.
    """
    device: Device = {"id": names.disk(disk.slot)}
    if node is not None:
        device["drive"] = node
    if boot_index is not None:
        device["bootindex"] = boot_index
    if disk.kind is DiskKind.CD:
        bus = f"{names.SCSI_CONTROLLER}.0"
        return {"driver": "scsi-cd", "bus": bus, "channel": 0, "scsi-id": disk.slot, "lun": 0, **device}
    bus = names.disk_port(disk.slot)
    return {"driver": "virtio-blk-pci", "bus": bus, "addr": "0x0", "serial": names.disk(disk.slot), **device}


def nic_device(nic: NicSpec, boot_index: int | None = None) -> Device:
    """The card of a slot. Only one that takes part in booting carries a boot ROM: a domain that runs cannot read it."""
    device: Device = {
        "driver": "virtio-net-pci",
        "id": names.nic(nic.slot),
        "bus": names.nic_port(nic.slot),
        "addr": "0x0",
        "netdev": names.nic_backend(nic.slot),
        "mac": nic.mac,
    }
    if nic.mtu != STANDARD_MTU:
        device["host_mtu"] = nic.mtu
    return {**device, "romfile": ""} if boot_index is None else {**device, "bootindex": boot_index}


def tap_backend(slot: int, descriptor: str) -> Device:
    """A backend on an opened tap: `descriptor` is a number (command line) or a name given by `getfd`."""
    return {"type": "tap", "id": names.nic_backend(slot), "fd": descriptor}


def user_backend(slot: int) -> Device:
    """User-mode networking. The guest can also reach services on the host's loopback through the gateway address."""
    return {"type": "user", "id": names.nic_backend(slot)}
