"""The `disks` entry of a template's other_config: which disks its machines get when they are provisioned.

    <provision><disk device="0" size="8589934592" sr="" bootable="true" type="system"/></provision>

Anybody who may edit a template writes this text, so it is read as hostile: no document type, no entities, bounded
size and count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from domzero.engine.errors import ApiError
from domzero.toolstack.vm.device_names import VBD_POSITIONS, parse_vbd_position

MAXIMUM_LENGTH = 65536
"""Characters; sixteen disks need about two thousand."""
MAXIMUM_DISK_SIZE = 1 << 50
DISK_TYPES = ("system", "user", "ephemeral")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class PlannedDisk:
    """One disk to be made. `sr` is a uuid, or empty for the pool's default repository; `size` is in bytes."""

    device: str
    size: int
    sr: str = ""
    bootable: bool = False
    type: str = "system"


def write_disk_plan(disks: Iterable[PlannedDisk]) -> str:
    """The text that `parse_disk_plan` reads."""
    rows = (
        f"<disk device={quoteattr(disk.device)} size={quoteattr(str(disk.size))} sr={quoteattr(disk.sr)}"
        f" bootable={quoteattr(str(disk.bootable).lower())} type={quoteattr(disk.type)}/>"
        for disk in disks
    )
    return f"<provision>{''.join(rows)}</provision>"


def parse_disk_plan(text: str) -> tuple[PlannedDisk, ...]:
    """The disks of the plan, in order. Raises `ApiError` INVALID_VALUE with the reason."""
    if len(text) > MAXIMUM_LENGTH:
        _refuse(f"longer than {MAXIMUM_LENGTH} characters")
    disks = tuple(_planned_disk(attributes) for attributes in _disk_elements(text))
    positions = [parse_vbd_position(disk.device) for disk in disks]
    if len(set(positions)) != len(positions):
        _refuse("two disks have the same device")
    return disks


def _disk_elements(text: str) -> list[Mapping[str, str]]:
    """The attributes of every `disk` element, provided the document has the one shape that is allowed."""
    path: list[str] = []
    elements: list[Mapping[str, str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        if path == ["provision", "disk"]:
            elements.append(attributes)
        elif path != ["provision"]:
            _refuse(f"unexpected element {name!r}")
        if len(elements) > VBD_POSITIONS:
            _refuse(f"more than {VBD_POSITIONS} disks")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = lambda *_: _refuse("a document type is not allowed")
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: path.pop()
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        _refuse(f"not well-formed: {error}")
    return elements


def _planned_disk(attributes: Mapping[str, str]) -> PlannedDisk:
    device = attributes.get("device", "")
    if parse_vbd_position(device) is None:
        _refuse(f"device {device!r}")
    size = attributes.get("size", "")
    if not (size.isascii() and size.isdigit() and len(size) < 20 and 0 < int(size) <= MAXIMUM_DISK_SIZE):
        _refuse(f"size {size!r}")
    bootable = _BOOLEANS.get(attributes.get("bootable", "false"))
    if bootable is None:
        _refuse("bootable must be true or false")
    type_ = attributes.get("type", "system")
    if type_ not in DISK_TYPES:
        _refuse(f"type {type_!r}")
    return PlannedDisk(device, int(size), attributes.get("sr", ""), bootable, type_)


def _refuse(reason: str) -> NoReturn:
    raise ApiError("INVALID_VALUE", "other_config:disks", reason)
