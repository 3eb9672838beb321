"""What a guest finds in the store about itself: a pure function from plain facts to nodes.

The paths are those of the tools that run in XenServer's guests (Xen's `docs/misc/xenstore-paths`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from domzero.host.xenstore.protocol import Access, Permission, Permissions, home

VM_DATA: Final = "vm-data"
"""The only part of VM.xenstore_data that a guest sees."""
LONGEST_VALUE: Final = 2048
"""Bytes: what a guest itself may write. Longer texts are cut; keys of `vm-data` with such values are left out."""
LONGEST_KEY: Final = 512
GUESTS_OWN: Final = ("attr", "control", "data", "drivers", "error", "feature", "messages", VM_DATA)
"""Directories in which a guest may do as it likes. What the toolstack asks of it is in `control`, too: a guest removes
such a node to acknowledge it."""
CONNECTED: Final = b"4"
"""XenbusStateConnected: both sides of a device agree."""
FIRST_DRIVE: Final = 202 << 8
"""The device number of xvda (Xen's `docs/man/xen-vbd-interface`); each drive has sixteen."""

_KEY = re.compile(rf"{VM_DATA}(/[A-Za-z0-9_@-]+)+")


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive that is plugged in."""

    slot: int
    is_cd: bool
    read_only: bool


@dataclass(frozen=True, slots=True)
class Card:
    """A network card that is plugged in."""

    slot: int
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told of a machine. Memory is in bytes."""

    domid: int
    uuid: str
    name: str
    memory_target: int
    memory_dynamic_min: int
    memory_dynamic_max: int
    memory_static_max: int
    vcpus: int
    vcpus_max: int
    drives: tuple[Drive, ...] = ()
    cards: tuple[Card, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    """VM.xenstore_data."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node's value, and whether it is the guest's to change."""

    value: bytes
    is_guests: bool = False

    def permissions(self, domid: int) -> Permissions:
        """The guest's own nodes are nobody else's; the others it may read."""
        if self.is_guests:
            return (Permission(domid, Access.NONE),)
        return (Permission(0, Access.NONE), Permission(domid, Access.READ))


def machine_path(uuid: str) -> str:
    """Where the store tells of a machine, whichever domain it is."""
    return f"/vm/{uuid}"


def nodes_of(facts: Facts) -> dict[str, Node]:
    """Every node by its absolute path, those above first."""
    mine = home(facts.domid)
    nodes = {mine: Node(b"")}
    nodes |= {f"{mine}/{path}": Node(value) for path, value in _told(facts)}
    nodes |= {f"{mine}/{path}": Node(b"", is_guests=True) for path in GUESTS_OWN}
    nodes |= {f"{mine}/{key}": Node(value, is_guests=True) for key, value in _vm_data(facts.data)}
    above = machine_path(facts.uuid)
    nodes |= {above: Node(b""), f"{above}/uuid": Node(facts.uuid.encode()), f"{above}/name": Node(_text(facts.name))}
    return nodes


def _told(facts: Facts) -> Iterator[tuple[str, bytes]]:
    yield "name", _text(facts.name)
    yield "vm", machine_path(facts.uuid).encode()
    yield "domid", _number(facts.domid)
    yield "memory", b""
    yield "memory/target", _kib(facts.memory_target)
    yield "memory/static-max", _kib(facts.memory_static_max)
    yield "memory/dynamic-min", _kib(facts.memory_dynamic_min)
    yield "memory/dynamic-max", _kib(facts.memory_dynamic_max)
    yield "cpu", b""
    for number in range(facts.vcpus_max):
        yield f"cpu/{number}", b""
        yield f"cpu/{number}/availability", b"online" if number < facts.vcpus else b"offline"
    yield "console", b""
    yield "console/type", b"ioemu"
    yield "device", b""
    yield "device/vbd", b""
    for drive in facts.drives:
        yield from _drive(drive)
    yield "device/vif", b""
    for card in facts.cards:
        yield from _card(card)


def _drive(drive: Drive) -> Iterator[tuple[str, bytes]]:
    number = FIRST_DRIVE + drive.slot * 16
    place = f"device/vbd/{number}"
    yield place, b""
    yield f"{place}/virtual-device", _number(number)
    yield f"{place}/device-type", b"cdrom" if drive.is_cd else b"disk"
    yield f"{place}/mode", b"r" if drive.read_only else b"w"
    yield f"{place}/backend-id", b"0"
    yield f"{place}/state", CONNECTED


def _card(card: Card) -> Iterator[tuple[str, bytes]]:
    place = f"device/vif/{card.slot}"
    yield place, b""
    yield f"{place}/handle", _number(card.slot)
    yield f"{place}/mac", card.mac.encode()
    yield f"{place}/mtu", _number(card.mtu)
    yield f"{place}/backend-id", b"0"
    yield f"{place}/state", CONNECTED


def _vm_data(data: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """The keys that a guest sees, those above first, with those that their paths go through."""
    seen = {VM_DATA}
    for key in sorted(data):
        value = data[key].encode()
        if len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE or not _KEY.fullmatch(key):
            continue
        parts = key.split("/")
        for depth in range(2, len(parts)):
            above = "/".join(parts[:depth])
            if above not in seen and above not in data:
                seen.add(above)
                yield above, b""
        seen.add(key)
        yield key, value


def _text(text: str) -> bytes:
    return text.encode()[:LONGEST_VALUE].decode(errors="ignore").encode()


def _number(number: int) -> bytes:
    return b"%d" % number


def _kib(size: int) -> bytes:
    return b"%d" % (size // 1024)
