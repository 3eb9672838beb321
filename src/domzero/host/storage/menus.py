"""The XML that a client chooses from when it probes: what there is where its configuration says too little.

The element names are those that XenServer's clients look for. Each function answers a whole document; text from a
server or a medium is escaped, and characters that XML cannot hold are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from domzero.host.storage.protocol import ProbedRepository

UNSAYABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 section 2.2 does not allow."""


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A disk or an unused part of one. `size` is bytes."""

    path: str
    size: int
    vendor: str = ""
    serial: str = ""


@dataclass(frozen=True, slots=True)
class IscsiTarget:
    """A target that a portal offers."""

    address: str
    port: int
    iqn: str
    portal_group: int = 1


@dataclass(frozen=True, slots=True)
class IscsiUnit:
    """A logical unit of a target. `size` is bytes."""

    lun: int
    scsi_id: str
    size: int
    vendor: str = ""
    serial: str = ""


@dataclass(frozen=True, slots=True)
class NfsExport:
    """A directory that a server exports, and to whom."""

    path: str
    clients: str


Row = tuple[tuple[str, object], ...]


def device_menu(devices: Iterable[BlockDevice]) -> str:
    """Goes with `StorageError` 90."""
    rows = (_filled(("path", d.path), ("size", d.size), ("vendor", d.vendor), ("serial", d.serial)) for d in devices)
    return _document("Devlist", "BlockDevice", rows)


def target_menu(targets: Iterable[IscsiTarget]) -> str:
    """Goes with `StorageError` 96."""
    rows: Iterable[Row] = (
        (("Index", index), ("IPAddress", target.address), ("Port", target.port), ("TargetIQN", target.iqn))
        for index, target in enumerate(targets)
    )
    return _document("iscsi-target-iqns", "TGT", rows)


def unit_menu(units: Iterable[IscsiUnit]) -> str:
    """Goes with `StorageError` 107."""
    rows: Iterable[Row] = (
        (
            ("vendor", unit.vendor),
            ("serial", unit.serial),
            ("LUNid", unit.lun),
            ("size", unit.size),
            ("SCSIid", unit.scsi_id),
        )
        for unit in units
    )
    return _document("iscsi-target", "LUN", rows)


def export_menu(server: str, exports: Iterable[NfsExport]) -> str:
    """Goes with `StorageError` 101."""
    rows: Iterable[Row] = (
        (("Target", server), ("Path", export.path), ("Accesslist", export.clients)) for export in exports
    )
    return _document("nfs-exports", "Export", rows)


def repository_list(found: Iterable[ProbedRepository]) -> str:
    """What a probe that found repositories answers: sizes only where they are known."""
    rows = (
        _filled(
            ("UUID", repository.uuid),
            ("Devlist", ",".join(repository.devices)),
            ("size", repository.size or ""),
            ("freespace", repository.free or ""),
        )
        for repository in found
    )
    return _document("SRlist", "SR", rows)


def _filled(*fields: tuple[str, object]) -> Row:
    return tuple((name, value) for name, value in fields if value != "")


def _document(root: str, item: str, rows: Iterable[Row]) -> str:
    document = ET.Element(root)
    for row in rows:
        element = ET.SubElement(document, item)
        for name, value in row:
            ET.SubElement(element, name).text = UNSAYABLE.sub("", str(value))
    ET.indent(document, "\t")
    return '<?xml version="1.0" ?>\n' + ET.tostring(document, encoding="unicode") + "\n"
