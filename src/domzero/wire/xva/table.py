"""The table of checksums at the end of archives of the versions 0 and 1, read as it comes.

It is an XML-RPC `<value>` of a struct from a block's name to its SHA-1; it has a row for each block of all disks, so it
is not built as a value. A document type is refused, and nothing is accepted but what such a table consists of.
"""

from __future__ import annotations

from typing import NoReturn
from xml.parsers import expat

from domzero.wire.strict_xml import strict_parser
from domzero.wire.xva.model import MAX_MANIFEST, unreadable

_PARENTS = {
    "value": (None, "member"),
    "struct": ("value",),
    "member": ("struct",),
    "name": ("member",),
    "string": ("value",),
}
_MAX_TEXT = 256


_ENCODINGS = ("utf-8", "us-ascii")


def _refuse(text: str) -> NoReturn:
    raise unreadable(f"checksum.xml: {text}")


class TableReader:
    """Takes the document in pieces. Raises `XvaError`."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._rows: list[tuple[str, str]] = []
        self._name = self._text = ""
        self._left = 4 * MAX_MANIFEST
        self._parser = strict_parser(self, _refuse, _ENCODINGS)

    def feed(self, data: bytes) -> tuple[tuple[str, str], ...]:
        """The rows that these bytes complete: the name of a block, its checksum in lower case."""
        self._left -= len(data)
        if self._left < 0:
            raise unreadable("checksum.xml is too large")
        self._parse(data, final=False)
        return self._complete()

    def finish(self) -> tuple[tuple[str, str], ...]:
        """Say that nothing follows: the rows for which expat had waited, as newer versions do with small pieces."""
        self._parse(b"", final=True)
        return self._complete()

    def _complete(self) -> tuple[tuple[str, str], ...]:
        rows, self._rows = tuple(self._rows), []
        return rows

    def _parse(self, data: bytes, final: bool) -> None:
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            raise unreadable(f"checksum.xml is malformed: {error}") from None

    # For the parser

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        parent = self._stack[-1] if self._stack else None
        if parent not in _PARENTS.get(name, ()) or len(self._stack) > 5:
            raise unreadable("checksum.xml is no table of checksums")
        self._stack.append(name)
        if name in ("name", "value"):
            self._text = ""

    def characters(self, text: str) -> None:
        self._text += text
        if len(self._text) > _MAX_TEXT:
            raise unreadable("checksum.xml is no table of checksums")

    def end(self, name: str) -> None:
        self._stack.pop()
        if name == "name":
            self._name = self._text.strip()
        elif name == "value" and self._stack:
            self._rows.append((self._name, self._text.strip().lower()))
