"""XVA, the archive that machines are exported to and imported from, as codecs without I/O.

Reading (uncompressed bytes, see `sniff`; `verifier.check` and `decode_manifest` take time: in a thread):

    reader, verifier = ArchiveReader(), Verifier()
    async for data in pieces:
        for event in reader.feed(data):   # or reader.finish() after the last
            match event:
                case ManifestXml(xml): manifest = decode_manifest(xml); check_version(manifest.version)
                case Block(): verifier.check(event); write(event.offset, event.data)
                case LegacyData(): write(event.offset, event.data)
                case DiskEnd(): ...
                case ChecksumTable(): verifier.listed(event)
    if (error := verifier.verdict()) is not None and not force: raise error

Writing:

    writer = ArchiveWriter()
    send(writer.manifest(encode_manifest(manifest, encoder)))
    for disk: plan = BlockPlan(size); for span in plan.data(…) of each stretch with data, then plan.finish():
        data = read(span.offset, span.length)
        if span.required or not is_zero(data):
            send(writer.block(disk, span.number, data, checksum(SHA1, data)))
    send(writer.end())

Everything that reading raises is an `XvaError`, which carries the XenAPI error's code and parameters.
"""

from domzero.wire.xva.checksums import SHA1, XXH64, Verifier, checksum
from domzero.wire.xva.inflate import SNIFFED, Compression, Inflater, sniff
from domzero.wire.xva.manifest import check_version, decode_manifest, encode_manifest
from domzero.wire.xva.model import (
    BLOCK,
    MAX_BLOCK,
    MAX_DISKS,
    MAX_MANIFEST,
    Appliance,
    ApplianceVbd,
    ApplianceVdi,
    ApplianceVm,
    ArchivedObject,
    ArchiveVersion,
    Block,
    Bytes,
    Checksum,
    ChecksumTable,
    DiskEnd,
    Event,
    LegacyData,
    Manifest,
    ManifestXml,
    XvaError,
    checksums_failed,
    object_not_found,
    premature_end,
    too_new,
    unexpected_file,
    unreadable,
)
from domzero.wire.xva.reader import ArchiveReader
from domzero.wire.xva.writer import ArchiveWriter, BlockPlan, Span, is_zero

__all__ = [
    "BLOCK", "MAX_BLOCK", "MAX_DISKS", "MAX_MANIFEST", "SHA1", "SNIFFED", "XXH64", "Appliance", "ApplianceVbd",
    "ApplianceVdi", "ApplianceVm", "ArchiveReader", "ArchiveVersion", "ArchiveWriter", "ArchivedObject", "Block",
    "BlockPlan", "Bytes", "Checksum", "ChecksumTable", "Compression", "DiskEnd", "Event", "Inflater", "LegacyData",
    "Manifest", "ManifestXml", "Span", "Verifier", "XvaError", "check_version", "checksum", "checksums_failed",
    "decode_manifest", "encode_manifest", "is_zero", "object_not_found", "premature_end", "sniff", "too_new",
    "unexpected_file", "unreadable",
]  # fmt: skip
