"""Every device as a plain value, the same for the command line (`-device`, `-blockdev`, `-netdev` take JSON) and for
hot-plug (`device_add`, `blockdev-add`, `netdev_add`).

Addresses are fixed: a guest finds each device in the same place in every boot, and a saved image fits a new process.
Bus map of `pcie.0`: 01 display, 02 root ports, 03 a bridge, from 05 on one device each. The first disks and cards sit
behind a root port each, where plugging is quickest; the others share the bridge, since every root port costs a
millisecond at start. ACPI hot-plug, QEMU's default, serves both, each slot alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from domzero.host.hypervisor.qemu import names
from domzero.host.hypervisor.spec import DiskKind, DiskSpec, NicSpec, TapBackend

Device = dict[str, object]

BALLOON_POLL_SECONDS = 10
STANDARD_MTU = 1500

LARGE_RECEIVES = ("guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo")
RECEIVING = {"tx": ("guest_csum", *LARGE_RECEIVES), "tso": LARGE_RECEIVES[:3], "ufo": LARGE_RECEIVES[3:]}
"""A tap's offload → features of a virtio card by which its guest takes the work over (Virtio 1.1, 5.1.3).

A guest's driver turns the tap's offloads on again when it accepts them (TUNSETOFFLOAD), so it must not be offered them.
"""


def sockets() -> Iterator[Device]:
    """Where disks and network cards are plugged: six root ports in one address, and the bridge."""
    ports = [
        *(names.disk_port(slot) for slot in range(names.PORTED_DISKS)),
        *(names.nic_port(slot) for slot in range(names.PORTED_NICS)),
    ]
    for number, port in enumerate(ports):
        device: Device = {"driver": "pcie-root-port", "id": port, "bus": "pcie.0", "addr": f"0x2.{number:#x}"}
        yield {**device, "multifunction": number == 0, "chassis": number + 1, "port": number}
    yield {"driver": "pci-bridge", "id": names.BRIDGE, "bus": "pcie.0", "addr": "0x3", "chassis_nr": len(ports) + 1}


def disk_socket(slot: int) -> Device:
    """Bus and address of a disk slot."""
    if slot < names.PORTED_DISKS:
        return {"bus": names.disk_port(slot), "addr": "0x0"}
    return {"bus": names.BRIDGE, "addr": f"{slot:#x}"}


def nic_socket(slot: int) -> Device:
    """Bus and address of a network card's slot."""
    if slot < names.PORTED_NICS:
        return {"bus": names.nic_port(slot), "addr": "0x0"}
    return {"bus": names.BRIDGE, "addr": f"{len(names.DISK_SLOTS) + slot:#x}"}


def guest_ports(count: int) -> Iterator[Device]:
    """The first so many of the ports through which a guest reaches the store."""
    ports = ((names.GUEST_PORT, "guest", names.GUEST_CHANNEL), (names.TOOLS_PORT, "tools", names.TOOLS_CHANNEL))
    for number, (port, chardev, name) in enumerate(ports[:count], 1):
        place: Device = {"driver": "virtserialport", "id": port, "bus": "channels.0", "nr": number}
        yield {**place, "chardev": chardev, "name": name}


def fixed_devices(ports: int = names.PORTS, queues: int = 0) -> Iterator[Device]:
    """What every machine has, from display and guest channels to the line on which a guest reports its panic."""
    yield {"driver": "VGA", "id": "vga", "bus": "pcie.0", "addr": "0x1"}
    yield {"driver": "virtio-serial-pci", "id": "channels", "bus": "pcie.0", "addr": "0x5"}
    yield from guest_ports(ports)
    yield {
        "driver": "virtio-balloon-pci",
        "id": names.BALLOON,
        "bus": "pcie.0",
        "addr": "0x6",
        "deflate-on-oom": True,
        "guest-stats-polling-interval": BALLOON_POLL_SECONDS,
    }
    yield {"driver": "virtio-rng-pci", "id": "rng", "bus": "pcie.0", "addr": "0x7", "rng": "entropy"}
    scsi: Device = {"driver": "virtio-scsi-pci", "id": names.SCSI_CONTROLLER, "bus": "pcie.0", "addr": "0x8"}
    yield {**scsi, "num_queues": queues} if queues else scsi
    yield {"driver": "qemu-xhci", "id": "usb", "bus": "pcie.0", "addr": "0x9"}
    yield {"driver": "usb-tablet", "id": "tablet", "bus": "usb.0", "port": "1"}
    yield {"driver": "isa-serial", "id": "serial-port", "chardev": "serial"}
    yield {"driver": "pvpanic", "id": "panic"}


def disk_device(disk: DiskSpec, node: str | None, boot_index: int | None = None, *, queues: int = 0) -> Device:
    """The device of a disk slot on block node `node`; None stands for an empty CD drive.

    QEMU's own number of queues (0) is that of the processors at start, which a machine does not have any more when it
    goes on from saved memory after some were plugged. So the number of its first start is kept (`Handle.queues`).
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
    if queues:
        device["num-queues"] = queues
    return {"driver": "virtio-blk-pci", **disk_socket(disk.slot), "serial": names.disk(disk.slot), **device}


def nic_device(nic: NicSpec, boot_index: int | None = None) -> Device:
    """The card of a slot. Only one that takes part in booting carries a boot ROM: a domain that runs cannot read it."""
    device: Device = {
        "driver": "virtio-net-pci",
        "id": names.nic(nic.slot),
        **nic_socket(nic.slot),
        "netdev": names.nic_backend(nic.slot),
        "mac": nic.mac,
    }
    if nic.mtu != STANDARD_MTU:
        device["host_mtu"] = nic.mtu
    if isinstance(nic.backend, TapBackend):
        device |= {name: False for key in sorted(nic.backend.refused) for name in RECEIVING.get(key, ())}
    return {**device, "romfile": ""} if boot_index is None else {**device, "bootindex": boot_index}


def tap_backend(slot: int, descriptor: str) -> Device:
    """A backend on an opened tap: `descriptor` is a number (command line) or a name given by `getfd`."""
    return {"type": "tap", "id": names.nic_backend(slot), "fd": descriptor}


def user_backend(slot: int) -> Device:
    """User-mode networking. The guest can also reach services on the host's loopback through the gateway address."""
    return {"type": "user", "id": names.nic_backend(slot)}
