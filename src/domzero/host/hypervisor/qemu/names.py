"""What the parts of a domain are called inside QEMU.

Every name follows from a slot alone, so a daemon that adopts a domain needs no list of what was plugged when.
"""

from __future__ import annotations

DISK_SLOTS = range(16)
NIC_SLOTS = range(7)
PORTED_DISKS = 4
PORTED_NICS = 2
"""How many slots, from 0 on, have a root port of their own; the others share the bridge."""

BRIDGE = "bridge"
SCSI_CONTROLLER = "scsi"
BALLOON = "balloon"
GUEST_CHANNEL = "org.domzero.guest.0"
"""The name of the virtio-serial port a guest agent opens."""
VOID_PREFIX = "void-"
"""What the names of nodes begin with that stand for a disk taken out by force."""


def disk(slot: int) -> str:
    """The device (qdev id) in a disk slot."""
    return f"disk-{slot}"


def disk_port(slot: int) -> str:
    """The root port of a disk slot below `PORTED_DISKS`, empty or not."""
    return f"disk-port-{slot}"


def image(slot: int, first_set: int) -> str:
    """The block node of an image in a slot; `first_set` is the descriptor set of its topmost file."""
    return f"image-{slot}-{first_set}"


def image_prefix(slot: int) -> str:
    """What the names of all nodes that were ever opened for a slot begin with."""
    return f"image-{slot}-"


def nic(slot: int) -> str:
    """The network card (qdev id) in a slot."""
    return f"nic-{slot}"


def nic_port(slot: int) -> str:
    """The root port of a network card's slot below `PORTED_NICS`."""
    return f"nic-port-{slot}"


def nic_backend(slot: int) -> str:
    """The network backend (netdev id) behind a card."""
    return f"net-{slot}"
