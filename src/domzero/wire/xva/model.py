"""What an XVA archive says, as plain values: the words between its codecs and whoever imports and exports.

An XVA is a tar archive whose first member, `ova.xml`, describes machines and what belongs to them; after it come the
contents of disks, in blocks. Archives are written by strangers: whatever is wrong with one is an `XvaError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

BLOCK = 1 << 20
"""Bytes of a disk in one member; the last member of a disk may hold fewer."""
MAX_BLOCK = 4 * BLOCK
"""Members of disks may be as large as this in archives that others wrote: a block is held whole until it is checked."""
MAX_MANIFEST = 64 << 20
"""Bytes of the `ova.xml` of an archive, uncompressed."""
MAX_DISKS = 4096
"""Disks in one archive."""

Bytes: TypeAlias = bytes | bytearray | memoryview


class XvaError(Exception):
    """The archive cannot be read. `code` and `parameters` are those of the XenAPI error that says so to a client."""

    def __init__(self, code: str, *parameters: str) -> None:
        super().__init__(": ".join((code, *parameters)))
        self.code = code
        self.parameters = parameters


def unreadable(text: str) -> XvaError:
    """The error for what no other code says; the text is for a person."""
    return XvaError("IMPORT_ERROR", text)


def unexpected_file(expected: str, found: str) -> XvaError:
    """A member is not the one that must come here."""
    return XvaError("IMPORT_ERROR_UNEXPECTED_FILE", expected, found)


def premature_end() -> XvaError:
    """The archive stops before its end."""
    return XvaError("IMPORT_ERROR_PREMATURE_EOF")


def checksums_failed() -> XvaError:
    """Some blocks are not what their checksums say."""
    return XvaError("IMPORT_ERROR_SOME_CHECKSUMS_FAILED")


def object_not_found(id: str) -> XvaError:
    """Something refers to an object that the archive does not contain."""
    return XvaError("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", id)


def too_new() -> XvaError:
    """A newer toolstack wrote the archive."""
    return XvaError("IMPORT_INCOMPATIBLE_VERSION")


@dataclass(frozen=True, slots=True)
class ArchiveVersion:
    """Who wrote an archive, and in which form.

    `export_vsn` is 0 where checksums are in one table at the end (Rio beta 2), 1 where there is such a table and a
    checksum after each block (XenServer 4.0), 2 where only the latter is (4.1 and everything since).
    """

    hostname: str
    date: str
    product_version: str
    product_brand: str
    build_number: str
    xapi_major: int
    xapi_minor: int
    export_vsn: int


@dataclass(frozen=True, slots=True)
class ArchivedObject:
    """One object of the archive. `id` is `Ref:<n>`; a `uuid` in the snapshot is one, or empty.

    Read from an archive, `snapshot` holds what the XML says (`str` for an `int`, `list` for a set, `dict` for a map,
    bool, float, `DateTime`); members may be missing and unknown ones present. To be written, it holds the API's values
    (see `idl.types`). References in it are `Ref:<n>` of this archive, or `OpaqueRef:NULL`.
    """

    cls: str
    id: str
    snapshot: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An `ova.xml` of XenServer 4.0 or later. Ids are unique."""

    version: ArchiveVersion
    objects: tuple[ArchivedObject, ...]


@dataclass(frozen=True, slots=True)
class ApplianceVbd:
    """A disk of a machine in a legacy archive. `device` is `xvda`, `sda`, …; `vdi` names an `ApplianceVdi`."""

    device: str
    function: str
    writable: bool
    vdi: str


@dataclass(frozen=True, slots=True)
class ApplianceVm:
    """A machine in a legacy archive. `memory` is in bytes; `settings` and `hacks` are attributes as they stand."""

    name: str
    label: str
    description: str
    memory: int
    vcpus: int
    is_hvm: bool
    kernel_boot_cmdline: str
    settings: Mapping[str, str]
    hacks: Mapping[str, str]
    vbds: tuple[ApplianceVbd, ...]


@dataclass(frozen=True, slots=True)
class ApplianceVdi:
    """A disk in a legacy archive. `size` is in bytes; `directory` is where its chunks are, as `LegacyData.disk`."""

    name: str
    size: int
    directory: str
    variety: str


@dataclass(frozen=True, slots=True)
class Appliance:
    """The `ova.xml` of a legacy archive (before XenServer 4.0; also what physical machines were converted to)."""

    version: str
    vms: tuple[ApplianceVm, ...]
    vdis: tuple[ApplianceVdi, ...]


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a block's bytes ought to be: `algorithm` is `sha1` or `xxh64`, `text` hexadecimal in lower case."""

    algorithm: str
    text: str


# What an `ArchiveReader` reports, in the order of the archive.


@dataclass(frozen=True, slots=True)
class ManifestXml:
    """The whole `ova.xml`: always the first event. For `decode_manifest`, which may take seconds: use a thread."""

    xml: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A piece of a disk, at most `MAX_BLOCK` bytes, which begins at `offset` (in bytes).

    `data` belongs to whoever got it and stays as it is. It is empty in a member that only kept a connection alive.
    Whether the bytes are the right ones is for `checksums.Verifier` to say. `number` is the member's; disk and number
    rise strictly within a disk, offsets never fall.
    """

    disk: str
    number: int
    offset: int
    data: Bytes
    checksum: Checksum | None

    @property
    def name(self) -> str:
        """The name of the member."""
        return f"{self.disk}/{self.number:08d}"


@dataclass(frozen=True, slots=True, eq=False)
class LegacyData:
    """A piece of a disk of a legacy archive, at most `BLOCK` bytes, uncompressed; nothing but gzip's CRC checks it.

    `data` belongs to whoever got it.
    """

    disk: str
    offset: int
    data: Bytes


@dataclass(frozen=True, slots=True)
class DiskEnd:
    """Nothing more of this disk follows. `size` is where its last block ended, in bytes: never more than was sent and
    left out together, and less than the disk where the archive is broken."""

    disk: str
    size: int


@dataclass(frozen=True, slots=True)
class ChecksumTable:
    """Some rows of the table at the end of archives of the versions 0 and 1, for `checksums.Verifier`."""

    rows: tuple[tuple[str, str], ...]


Event: TypeAlias = ManifestXml | Block | LegacyData | DiskEnd | ChecksumTable
