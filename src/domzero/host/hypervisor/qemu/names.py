"""What the parts of a domain are called inside QEMU.

Every name follows from a slot alone, so a daemon that adopts a domain needs no list of what was plugged when.
"""

from __future__ import annotations

import re

DISK_SLOTS = range(16)
NIC_SLOTS = range(7)
PORTED_DISKS = 4
PORTED_NICS = 2
"""How many slots, from 0 on, have a root port of their own; the others share the bridge."""

BRIDGE = "bridge"
SCSI_CONTROLLER = "scsi"
BALLOON = "balloon"
GUEST_PORT = "guest-port"
GUEST_CHANNEL = "org.domzero.guest.0"
"""The name of the virtio-serial port a guest agent opens; it speaks xenstore's protocol."""
TOOLS_PORT = "tools-port"
TOOLS_CHANNEL = "org.domzero.xenstore.0"
"""The same for other programs in a guest, such as xenstore's tools: a port is one program's at a time."""
PORTS = 2
"""How many of these a domain has; those of earlier versions have the first alone."""
VOID_PREFIX = "void-"
"""What the names of nodes begin with that stand for a disk taken out by force."""


def disk(slot: int) -> str:
    """The device (qdev id) in a disk slot."""
    return f"disk-{slot}"


def disk_port(slot: int) -> str:
    """The root port of a disk slot below `PORTED_DISKS`, empty or not."""
    return f"disk-port-{slot}"


def image(slot: int, number: int) -> str:
    """The block node of an image in a slot, which is the monitor's own. `number` is that of its topmost layer.

    Each layer, and so whatever it consists of, has a number never used before in the domain; a layer that is a file of
    this host is in the descriptor set of that number.
    """
    return f"image-{slot}-{number}"


def layer(slot: int, number: int) -> str:
    """The block node of a layer below the topmost; it goes with the last node that stands on it."""
    return f"layer-{slot}-{number}"


def file(slot: int, number: int) -> str:
    """The node of the file, device or remote image a layer is in."""
    return f"file-{slot}-{number}"


def part(slot: int, number: int) -> str:
    """The node that cuts an extent out of a file, where a format other than raw lies in the extent."""
    return f"part-{slot}-{number}"


def secret(slot: int, number: int) -> str:
    """The object with the password of a remote image."""
    return f"secret-{slot}-{number}"


def void(slot: int, number: int) -> str:
    """A node that stands for a disk taken out by force."""
    return f"{VOID_PREFIX}{slot}-{number}"


def keeper(slot: int, number: int) -> str:
    """The node that holds on to a layer's file while the layer is made larger; a raw part of the size to come."""
    return f"keeper-{slot}-{number}"


def blank(slot: int, number: int) -> str:
    """The node that stands in for a layer's file while the layer is made larger."""
    return f"blank-{slot}-{number}"


def pull(slot: int, number: int) -> str:
    """The block job that pulls layers of a disk together."""
    return f"pull-{slot}-{number}"


NUMBERED = re.compile(r"(image|layer|file|part|secret|void|keeper|blank|pull)-(\d{1,9})-(\d{1,9})")
"""Kind, slot and number of a name made here."""


def parse(name: str) -> tuple[str, int, int] | None:
    """Kind, slot and number of a node, object or job, None for a name not made here."""
    found = NUMBERED.fullmatch(name)
    return None if found is None else (found[1], int(found[2]), int(found[3]))


def nic(slot: int) -> str:
    """The network card (qdev id) in a slot."""
    return f"nic-{slot}"


def nic_port(slot: int) -> str:
    """The root port of a network card's slot below `PORTED_NICS`."""
    return f"nic-port-{slot}"


def nic_backend(slot: int) -> str:
    """The network backend (netdev id) behind a card."""
    return f"net-{slot}"
