"""The tar container (POSIX ustar), one block of 512 bytes after the other, without I/O.

The standard library's `tarfile` wants a file to read from; its `TarInfo` alone knows the fields of a header and both
ways of summing them up, and is used for that. What `frombuf` lets through though no archive of ours may have it
(negative sizes, for one) is refused here. GNU's and pax's long names are understood, since `tar` makes them when
somebody packs an archive again; directories are passed over; links, devices and sparse files are refused.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from domzero.wire.xva.model import Bytes, premature_end, unreadable

RECORD = 512
MAX_MEMBER = 1 << 40
"""Bytes of one member. Legacy chunks have up to 10⁹."""
MAX_EXTENSION = 64 << 10
"""Bytes of a pax header or a GNU long name."""
MAX_NAME = 255

END = bytes(2 * RECORD)
"""What ends an archive."""

_ZEROS = bytes(RECORD)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
_NAME = re.compile(r"[\x21-\x7e]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Member:
    """A file begins: its name (printable ASCII, relative, without `..`) and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Bytes of the member that began last: a view of what was fed, valid until the next feed."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class MemberEnd:
    """The member that began last is complete."""


TarEvent = Member | Piece | MemberEnd


def encode_header(name: str, size: int) -> bytes:
    """The header of a file, owned by root and readable by its owner. Raises `ValueError` for what ustar cannot say."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o400
    info.uname = info.gname = "root"
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def padding(size: int) -> bytes:
    """What follows a file's bytes up to the next header."""
    return bytes(-size % RECORD)


class TarReader:
    """Takes an archive in pieces of any size. Holds a header and a long name at most.

    Everything that is fed is looked at before the next feed: exhaust the iterator. Raises `XvaError`.
    """

    def __init__(self) -> None:
        self.ended = False
        """Whether the two empty blocks at the end were met. What follows them is not looked at."""
        self._head = bytearray()
        self._left = 0
        self._padding = 0
        self._member = False
        self._zeros = 0
        self._extension: bytearray | None = None
        self._type = b""
        self._long_name: str | None = None
        self._long_size: int | None = None

    def feed(self, data: Bytes) -> Iterator[TarEvent]:
        """What these bytes bring, in order. Nothing once the archive has ended."""
        view = memoryview(data).cast("B")
        while len(view) and not self.ended:
            if self._left:
                taken = min(self._left, len(view))
                self._left -= taken
                if self._extension is not None:
                    self._extension += view[:taken]
                else:
                    yield Piece(view[:taken])
                view = view[taken:]
                if not self._left:
                    yield from self._complete()
            elif self._padding:
                taken = min(self._padding, len(view))
                self._padding -= taken
                view = view[taken:]
            else:
                taken = RECORD - len(self._head)
                self._head += view[:taken]
                view = view[taken:]
                if len(self._head) == RECORD:
                    head = bytes(self._head)
                    self._head.clear()
                    yield from self._header(head)

    def finish(self) -> None:
        """Say that nothing follows. Raises `XvaError` unless the archive is complete.

        One empty block is enough: some writers, and `tar` when it reads, are content with it.
        """
        if not self.ended and not (self._zeros and not self._head):
            raise premature_end()

    def _header(self, head: bytes) -> Iterator[TarEvent]:
        if head == _ZEROS:
            if self._long_name is not None or self._long_size is not None:
                raise unreadable("a tar header with a long name has no member after it")
            self._zeros += 1
            self.ended = self._zeros == 2
            return
        if self._zeros:
            raise unreadable("there is a tar header behind the end of the archive")
        info = _decode(head)
        self._left, self._padding = info.size, -info.size % RECORD
        if info.type in _EXTENSIONS:
            if info.size > MAX_EXTENSION:
                raise unreadable("a tar header is longer than any name")
            self._extension, self._type = bytearray(), info.type
        elif info.type == tarfile.DIRTYPE:
            if info.size:
                raise unreadable("a directory in the archive has bytes of its own")
            self._name(info.name)
            return
        elif info.type in _REGULAR:
            yield self._begin(info)
        else:
            raise unreadable(f"the archive contains {_kind(info.type)}, which no XVA has")
        if not self._left:
            yield from self._complete()

    def _begin(self, info: tarfile.TarInfo) -> Member:
        name = self._name(info.name)
        if self._long_size is not None:
            self._left, self._padding = self._long_size, -self._long_size % RECORD
        self._long_size = None
        if self._left > MAX_MEMBER:
            raise unreadable(f"the archive's member {name} claims to have {self._left} bytes")
        return Member(name, self._left)

    def _name(self, short: str) -> str:
        name = self._long_name if self._long_name is not None else short
        self._long_name = None
        return checked_name(name)

    def _complete(self) -> Iterator[TarEvent]:
        if self._extension is None:
            yield MemberEnd()
            return
        content, self._extension = bytes(self._extension), None
        if self._type == tarfile.GNUTYPE_LONGNAME:
            self._long_name = content.rstrip(b"\0").decode("ascii", "backslashreplace")
            return
        fields = pax_fields(content)
        if self._type == tarfile.XGLTYPE:
            if fields.keys() & {"path", "size", "linkpath"}:
                raise unreadable("a global tar header gives all members one name or size")
            return
        self._long_name = fields.get("path", self._long_name)
        if "size" in fields:
            if not re.fullmatch(r"[0-9]{1,19}", fields["size"], re.ASCII):
                raise unreadable("a tar header has no sensible size")
            self._long_size = int(fields["size"])
        if any(key.startswith("GNU.sparse") for key in fields):
            raise unreadable("the archive contains a sparse file, which no XVA has")


def pax_fields(content: bytes) -> dict[str, str]:
    """The records `<length> <key>=<value>\\n` of a pax header (POSIX, “pax Extended Header”). Raises `XvaError`."""
    fields: dict[str, str] = {}
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 8)
        digits = content[position:space]
        if space < 0 or not digits.isdigit():
            raise unreadable("a pax header is malformed")
        end = position + int(digits)
        record = content[space + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(content) or not key or not equals or not value.endswith(b"\n"):
            raise unreadable("a pax header is malformed")
        fields[key.decode("ascii", "backslashreplace")] = value[:-1].decode("ascii", "backslashreplace")
        position = end
    return fields


def checked_name(name: str) -> str:
    """A member's name as it may be used, a leading `./` taken off. Raises `XvaError` for anything that is a trick."""
    plain = name.removeprefix("./").rstrip("/")
    shown = ascii(name[:MAX_NAME])
    if len(plain) > MAX_NAME:
        raise unreadable(f"a name in the archive is longer than {MAX_NAME} characters: {shown}")
    if plain in ("", ".") and name in (".", "./"):
        return "."
    if not _NAME.fullmatch(plain) or plain.startswith("/") or {"", ".", ".."} & set(plain.split("/")):
        raise unreadable(f"the archive contains a file with the name {shown}")
    return plain


def _decode(head: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(head, "ascii", "backslashreplace")
    except (tarfile.HeaderError, ValueError) as error:
        raise unreadable(f"this is no tar archive, or a damaged one: {error}") from None
    if info.size < 0:
        raise unreadable("a tar header has a negative size")
    # `frombuf` turns an old-style file whose name ends in a slash into a directory, size and all.
    return info


def _kind(type: bytes) -> str:
    kinds = {
        tarfile.LNKTYPE: "a link", tarfile.SYMTYPE: "a link", tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device",
        tarfile.FIFOTYPE: "a pipe", tarfile.GNUTYPE_SPARSE: "a sparse file",
    }  # fmt: skip
    return kinds.get(type, f"a member of the unknown type {type!r}")
