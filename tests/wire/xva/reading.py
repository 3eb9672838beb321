"""Reading a whole archive as an import does, for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from domzero.wire.xva import (
    Appliance,
    ArchiveReader,
    Block,
    Bytes,
    ChecksumTable,
    DiskEnd,
    Event,
    Inflater,
    LegacyData,
    Manifest,
    ManifestXml,
    Verifier,
    XvaError,
    check_version,
    decode_manifest,
    sniff,
)


@dataclass
class Found:
    """What was in an archive. `sizes` are what the reader said at each disk's end."""

    manifest: Manifest | Appliance | None = None
    disks: dict[str, bytearray] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    verifier: Verifier = field(default_factory=Verifier)

    def take(self, event: Event) -> None:
        match event:
            case ManifestXml(xml):
                assert self.manifest is None
                self.manifest = decode_manifest(xml)
                if isinstance(self.manifest, Manifest):
                    check_version(self.manifest.version)
            case Block():
                self.verifier.check(event)
                self.blocks.append(event)
                self.put(event.disk, event.offset, event.data)
            case LegacyData(disk, offset, data):
                self.put(disk, offset, data)
            case DiskEnd(disk, size):
                assert disk not in self.sizes
                self.sizes[disk] = size
            case ChecksumTable():
                self.verifier.listed(event)

    def put(self, disk: str, offset: int, data: Bytes) -> None:
        content = self.disks.setdefault(disk, bytearray())
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """The data in pieces of that size, decompressed if it is gzip."""
    inflater = Inflater() if sniff(data[:4]) == "gzip" else None
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        if inflater is None:
            yield piece
        else:
            yield from inflater.feed(piece)
    if inflater is not None:
        inflater.finish()


def refusal(data: bytes, size: int = 1 << 20) -> str | None:
    """The code of the error with which reading ends, if it does."""
    try:
        read(data, size)
    except XvaError as error:
        return error.code
    return None


def read(data: bytes, size: int = 1 << 20) -> Found:
    """Everything in an archive. Raises `XvaError`, for wrong checksums, too."""
    found, reader = Found(), ArchiveReader()
    for piece in pieces(data, size):
        for event in reader.feed(piece):
            found.take(event)
    for event in reader.finish():
        found.take(event)
    if (error := found.verifier.verdict()) is not None:
        raise error
    return found
