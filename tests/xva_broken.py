"""Archives that an import must refuse, each with the error that says why, made like those of `xva_writer`."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tests.xva_writer import BLOCK, Form, Machine, Part, checksum_part, machine, manifest, parts, tar, xva

UNEXPECTED = "IMPORT_ERROR_UNEXPECTED_FILE"
EOF = "IMPORT_ERROR_PREMATURE_EOF"
CHECKSUMS = "IMPORT_ERROR_SOME_CHECKSUMS_FAILED"
GENERIC = "IMPORT_ERROR"
NOT_FOUND = "IMPORT_ERROR_FAILED_TO_FIND_OBJECT"
TOO_NEW = "IMPORT_INCOMPATIBLE_VERSION"


@dataclass(frozen=True)
class Broken:
    """An archive and the code of the error with which it must be refused.

    `readable` where the archive itself is in order and what is wrong is what its objects say.
    """

    data: bytes
    code: str
    readable: bool = False


def plain() -> Machine:
    """A machine whose disk has two blocks and a bit, none of them zero."""
    return machine(disks={"0": b"\x01" * BLOCK + b"\x02" * BLOCK + b"\x03" * 1000})


def members(form: Form | None = None) -> list[Part]:
    """`ova.xml`, then block and checksum in turn."""
    return parts(plain(), form or Form())


def cut(length: int) -> Broken:
    """An archive that stops after so many bytes (counted from its end where negative)."""
    return Broken(tar(members())[:length], EOF)


def with_member(index: int, name: str, content: bytes) -> bytes:
    found = members()
    found[index] = (name, content)
    return tar(found)


def without(index: int) -> bytes:
    found = members()
    del found[index]
    return tar(found)


def wrong_checksum(kind: str) -> Broken:
    found = members()
    found[2] = checksum_part(found[1][0], b"something else", kind)
    return Broken(tar(found), CHECKSUMS)


def wrong_table() -> Broken:
    found = members(Form(export_vsn=0))
    found[2] = (found[2][0], b"\x09" * BLOCK)
    return Broken(tar(found), CHECKSUMS)


def odd_member(type: bytes, name: str = "Ref:6/00000000", target: str = "/etc/passwd") -> Broken:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, target
    return Broken(tar([members()[0], info]), GENERIC)


def extra(name: str, code: str = GENERIC) -> Broken:
    """A file of that name after the disks."""
    return Broken(tar([*members(), (name, b"content")]), code)


def patched_header(start: int, field: bytes, resum: bool = True) -> bytes:
    """An archive whose second header has other bytes at a place."""
    found = members()
    data = bytearray(tar(found))
    at = 512 + -(-len(found[0][1]) // 512) * 512
    header = data[at : at + 512]
    header[start : start + len(field)] = field
    if resum:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    data[at : at + 512] = header
    return bytes(data)


def with_xml(xml: bytes, code: str = GENERIC, readable: bool = False) -> Broken:
    return Broken(tar([("ova.xml", xml)]), code, readable)


def reordered() -> Broken:
    found = members()
    return Broken(tar([found[0], *found[3:5], *found[1:3], *found[5:]]), UNEXPECTED)


def twice() -> Broken:
    """A disk that goes on after another one."""
    two = machine(disks={"0": bytes(2 * BLOCK), "1": bytes(2 * BLOCK)})
    found = parts(two, Form())
    return Broken(tar([found[0], *found[1:3], *found[5:7], *found[3:5]]), UNEXPECTED)


def changed_objects(change: Callable[[Machine], Machine], code: str) -> Broken:
    return Broken(xva(change(plain())), code, readable=True)


def dangling(source: Machine) -> Machine:
    """A VBD whose disk the archive does not have."""
    objects = [
        (cls, id, {**snapshot, "VDI": "Ref:99"}) if cls == "VBD" else (cls, id, snapshot)
        for cls, id, snapshot in source.objects
    ]
    return Machine(objects, source.disks)


def unknown_disk(source: Machine) -> Machine:
    """Blocks of a disk that the archive does not describe."""
    return replace(source, disks={**source.disks, "Ref:99": b"surplus"})


def gzip_cut() -> Broken:
    return Broken(gzip.compress(tar(members()), 1)[:-2000], EOF)


def gzip_damaged() -> Broken:
    """gzip without compression is blocks that say their length twice; one says two lengths."""
    data = bytearray(gzip.compress(tar(members()), 0))
    second = 10 + 5 + int.from_bytes(data[11:13], "little")
    data[second + 3] ^= 0xFF
    return Broken(bytes(data), GENERIC)


def deep_xml() -> bytes:
    return b"<value><array><data>" * 500 + b"</data></array></value>" * 500


def expanding_xml() -> bytes:
    entities = b"".join(b'<!ENTITY e%d "%s">' % (n + 1, b"&e%d;" % n * 10) for n in range(8))
    return b'<!DOCTYPE v [<!ENTITY e0 "lol">' + entities + b"]><value>&e8;</value>"


def sparse_file() -> Broken:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("ova.xml")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "ova.xml"}
        archive.addfile(info)
    return Broken(out.getvalue(), GENERIC)


BROKEN: Mapping[str, Callable[[], Broken]] = {
    "nothing": lambda: Broken(b"", EOF),
    "rubbish": lambda: Broken(bytes(range(256)) * 400, GENERIC),
    "only the end": lambda: Broken(bytes(1024), EOF),
    "cut in a header": lambda: cut(100),
    "cut in the description": lambda: cut(900),
    "cut in a block": lambda: cut(1 << 20),
    "cut before the end": lambda: cut(-10240),
    "another first member": lambda: Broken(tar(members()[1:]), UNEXPECTED),
    "a wrong checksum": lambda: wrong_checksum("sha1"),
    "a wrong xxhash": lambda: wrong_checksum("xxhash"),
    "a wrong table": wrong_table,
    "a missing checksum": lambda: Broken(without(2), CHECKSUMS),
    "a checksum that is none": lambda: Broken(with_member(2, members()[2][0], b"not hexadecimal"), GENERIC),
    "a checksum of another block": lambda: Broken(with_member(2, "Ref:6/00000007.checksum", b"0" * 40), UNEXPECTED),
    "blocks in another order": reordered,
    "no first block": lambda: Broken(tar([members()[0], *members()[3:]]), UNEXPECTED),
    "a disk in two parts": twice,
    "a file that does not belong": lambda: extra("README", UNEXPECTED),
    "a path that climbs": lambda: extra("../../etc/passwd"),
    "a path inside that climbs": lambda: extra("Ref:6/../../00000009"),
    "an absolute path": lambda: extra("/etc/passwd"),
    "a name with a line end": lambda: extra("Ref:6/00000009\n"),
    "a symbolic link": lambda: odd_member(tarfile.SYMTYPE),
    "a hard link": lambda: odd_member(tarfile.LNKTYPE),
    "a device": lambda: odd_member(tarfile.BLKTYPE),
    "a pipe": lambda: odd_member(tarfile.FIFOTYPE),
    "a sparse file": sparse_file,
    "a negative size": lambda: Broken(patched_header(124, b"-0000000001\0"), GENERIC),
    "an absurd size": lambda: Broken(patched_header(124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), GENERIC),
    "a block too large": lambda: Broken(patched_header(124, b"77777777777\0"), GENERIC),
    "a header changed": lambda: Broken(patched_header(0, b"Ref:7", resum=False), GENERIC),
    "a description that is no XML": lambda: with_xml(b"not XML"),
    "a description of something else": lambda: with_xml(b"<value>text</value>"),
    "entities that expand": lambda: with_xml(expanding_xml()),
    "an entity from a file": lambda: with_xml(
        b'<!DOCTYPE v [<!ENTITY e SYSTEM "file:///etc/passwd">]><value>&e;</value>'
    ),
    "a description nested deep": lambda: with_xml(deep_xml()),
    "an appliance with entities": lambda: with_xml(b'<!DOCTYPE a [<!ENTITY e "x">]><appliance version="&e;"/>'),
    "an appliance with a path": lambda: with_xml(
        b'<appliance version="0.1"><vdi name="a" size="5" source="file:///../../etc"/></appliance>'
    ),
    "one id twice": lambda: with_xml(manifest([("VM", "Ref:1", {}), ("VM", "Ref:1", {})])),
    "an id that is none": lambda: with_xml(manifest([("VM", "OpaqueRef:1", {})])),
    "a uuid that is a path": lambda: with_xml(manifest([("VM", "Ref:1", {"uuid": "../../../etc"})])),
    "a newer form": lambda: with_xml(manifest([], export_vsn=3), TOO_NEW, readable=True),
    "a newer toolstack": lambda: with_xml(manifest([], xapi=(100, 0)), TOO_NEW, readable=True),
    "a disk that is not there": lambda: changed_objects(dangling, NOT_FOUND),
    "blocks of no disk": lambda: changed_objects(unknown_disk, NOT_FOUND),
    "gzip cut": gzip_cut,
    "gzip damaged": gzip_damaged,
}
"""By what is wrong."""
