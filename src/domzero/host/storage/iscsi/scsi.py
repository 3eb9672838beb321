"""The SCSI commands that tell what a logical unit is (SPC-4, SBC-3), and their replies. No I/O."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass

REPLY_LIMIT = 0xFFFC
"""Bytes that a reply may have."""
UNITS_LIMIT = 1024
"""Logical units looked at; there are never so many."""
DISK = 0x00
"""The peripheral type of a disk; the byte's upper bits say that it is connected."""
UNIT_ATTENTION = 6
SERIAL_PAGE, IDENTITY_PAGE = 0x80, 0x83
_LAST_BLOCK_LIMIT = 1 << 55

READ_CAPACITY = bytes([0x9E, 0x10]) + bytes(8) + (32).to_bytes(4, "big") + bytes(2)
MODE_SENSE = bytes([0x1A, 0x00, 0x3F, 0x00, 192, 0x00])


@dataclass(frozen=True, slots=True)
class Unit:
    """A disk of a target. `size` is bytes; the pages are INQUIRY's replies, empty where it has none."""

    lun: int
    size: int
    block_size: int
    read_only: bool
    standard: bytes
    serial_page: bytes
    identity_page: bytes

    @property
    def vendor(self) -> str:
        """Who made it."""
        return printable(self.standard[8:16])

    @property
    def model(self) -> str:
        """What it is."""
        return printable(self.standard[16:32])

    @property
    def serial(self) -> str:
        """Its serial number, empty where it has none."""
        return printable(_page(self.serial_page, SERIAL_PAGE))

    @property
    def scsi_id(self) -> str:
        """The name by which Linux tools know it, the same by every path; empty where it has none."""
        return scsi_id(self)

    def pages(self) -> dict[str, str]:
        """INQUIRY's replies as guests find them in xenstore, by XenServer's names."""
        found = {"default": self.standard, "0x80": self.serial_page, "0x83": self.identity_page}
        return {f"scsi/0x12/{name}": b64encode(page).decode() for name, page in found.items() if page}


def report_units() -> bytes:
    """Asks which logical units there are."""
    return bytes([0xA0]) + bytes(5) + REPLY_LIMIT.to_bytes(4, "big") + bytes(2)


def inquiry(page: int | None = None) -> bytes:
    """Asks what a unit is, or for one page of what there is to know of it."""
    return bytes([0x12, int(page is not None), page or 0]) + (0xFC).to_bytes(2, "big") + bytes(1)


def lun_address(lun: int) -> bytes:
    """A unit's number in eight bytes, as libiscsi writes it (SAM-5 section 4.7)."""
    return (lun if lun < 256 else 0x4000 | lun).to_bytes(2, "big") + bytes(6)


def units_in(reply: bytes) -> list[int]:
    """The numbers in a reply to `report_units`, in order. Those that need more than one level are left out."""
    length = min(int.from_bytes(reply[:4], "big"), len(reply) - 8)
    found = set()
    for offset in range(8, 8 + length - 7, 8):
        entry = reply[offset : offset + 8]
        method, number = entry[0] >> 6, (entry[0] & 0x3F) << 8 | entry[1]
        if any(entry[2:]) or method > 1 or (method == 0 and number > 255):
            continue
        found.add(number)
    return sorted(found)[:UNITS_LIMIT]


def is_disk(standard: bytes) -> bool:
    """Whether a reply to `inquiry` is that of a disk which is there."""
    return len(standard) >= 36 and standard[0] == DISK


def capacity_in(reply: bytes) -> tuple[int, int]:
    """How many bytes a unit has, and in blocks of how many. (0, 0) for what cannot be."""
    last, block_size = int.from_bytes(reply[:8], "big"), int.from_bytes(reply[8:12], "big")
    if len(reply) < 12 or block_size not in (512, 1024, 2048, 4096) or last >= _LAST_BLOCK_LIMIT:
        return 0, 0
    return (last + 1) * block_size, block_size


def write_protected(reply: bytes) -> bool:
    """What a reply to `MODE_SENSE` says."""
    return len(reply) > 2 and bool(reply[2] & 0x80)


def sense_key(data: bytes) -> int:
    """Why a command failed, in the data of a SCSI response; 0 where it does not say."""
    sense = data[2:]
    if len(sense) < 3:
        return 0
    return (sense[1] if sense[0] & 0x7F in (0x72, 0x73) else sense[2]) & 0x0F


def scsi_id(unit: Unit) -> str:
    """By NAA, EUI-64, the vendor's own name or the serial number, whichever is there, in udev's form."""
    names = _identities(unit.identity_page)
    for kind, prefix in ((3, "3"), (2, "2")):
        best = max((name for known, binary, name in names if known == kind and binary), key=_rank, default=b"")
        if best:
            return prefix + best.hex()
    text = next((name for known, _, name in names if known == 1), b"")
    if text:
        return "1" + plain(printable(text))
    return "S" + plain(f"{unit.vendor}_{unit.model}_{unit.serial}") if unit.serial else ""


def _rank(name: bytes) -> tuple[int, bytes]:
    return len(name), name


def _identities(page: bytes) -> list[tuple[int, bool, bytes]]:
    """Type, whether binary, and name, of those that are names of the unit itself."""
    body, found = _page(page, IDENTITY_PAGE), []
    while len(body) >= 4:
        kind, length = body[1], body[3]
        name = body[4 : 4 + length]
        if kind & 0x30 == 0 and len(name) == length and any(name):
            found.append((kind & 0x0F, body[0] & 0x0F == 1, name))
        body = body[4 + length :]
    return found


def _page(page: bytes, code: int) -> bytes:
    if len(page) < 4 or page[1] != code:
        return b""
    return page[4 : 4 + int.from_bytes(page[2:4], "big")]


def printable(content: bytes) -> str:
    """Text from a device: ASCII, without what surrounds it."""
    return re.sub(r"[^\x20-\x7e]", "", content.decode("ascii", "ignore")).strip()


def plain(text: str) -> str:
    """Text that can be part of a name."""
    return re.sub(r"[^A-Za-z0-9._:-]+", "_", text).strip("_")
