"""The database as XML, in the format of XenServer's `state.db`: what `/pool/xmldbdump` sends and takes.

`<database>` holds a `<manifest>` of `<pair key value>` and a `<table name>` for each class, with a `<row ref>` for each
object, whose attributes are its fields. Numbers and truth values are written as text, sets as `('a' 'b')`, maps as
`(('key' 'value'))`. Reading is made for files of strangers: no document types or entities, one row in memory at a time,
and nothing but `StateError` is raised, whatever the bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias
from xml.parsers import expat

from domzero.idl.graph import Graph
from domzero.idl.types import BOOL, DATETIME, FLOAT, INT, STRING, EnumOf, MapOf, RefTo, SetOf, Type
from domzero.wire.strict_xml import strict_parser
from domzero.wire.xml_decode import INT_MAX, INT_MIN

LONGEST_ROW = 32 << 20
"""Bytes of one row at most."""
QUOTED = 60
"""Characters of a bad value that an error quotes."""

Nested: TypeAlias = "str | list[Nested]"

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
_ESCAPED = re.compile('[&<>"\t\n\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')
_QUOTED = re.compile(r"['\\]")
_BACKSLASHED = re.compile(r"\\(.)", re.DOTALL)
_TOKEN = re.compile(r"\s*+(?:(\()|(\))|'((?:[^'\\]++|\\.)*+)'|([^\s()']++))", re.DOTALL)
_INT = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_DATETIME = re.compile(r"\d{8}T\d\d:\d\d:\d\dZ", re.ASCII)
_REF = re.compile(r"OpaqueRef:[0-9A-Za-z-]{1,64}", re.ASCII)


class StateError(Exception):
    """The bytes are no database; the text says why."""


@dataclass(frozen=True, slots=True)
class StateRow:
    """An object as it was read: its fields as text."""

    table: str
    ref: str
    fields: Mapping[str, str]


# Writing


def opening(manifest: Mapping[str, str]) -> bytes:
    """The beginning of the file."""
    pairs = "".join(f'<pair key="{_escaped(key)}" value="{_escaped(value)}"/>' for key, value in manifest.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<database><manifest>{pairs}</manifest>'.encode()


CLOSING = b"\n</database>\n"
TABLE_CLOSING = b"\n</table>"


def table_opening(name: str) -> bytes:
    """The beginning of a table."""
    return f'\n<table name="{_escaped(name)}">'.encode()


def encode_row(ref: str, fields: Iterable[tuple[str, Type, Any]]) -> bytes:
    """A row: its reference, and name, type and value of each field."""
    attributes = "".join(f' {name}="{_escaped(encode_value(type_, value))}"' for name, type_, value in fields)
    return f'\n<row ref="{_escaped(ref)}"{attributes}/>'.encode()


def encode_value(type_: Type, value: Any) -> str:
    """A field's text. What XML cannot carry is replaced later, by `encode_row`."""
    if isinstance(type_, SetOf | MapOf):
        return _expression(type_, value)
    if type_ == BOOL:
        return "true" if value else "false"
    return str(value)


def _expression(type_: Type, value: Any) -> str:
    match type_:
        case SetOf(item):
            return f"({' '.join(_expression(item, one) for one in value)})"
        case MapOf(key, inner):
            pairs = (f"({_expression(key, k)} {_expression(inner, v)})" for k, v in value.items())
            return f"({' '.join(pairs)})"
    return "'" + _QUOTED.sub(r"\\\g<0>", encode_value(type_, value)) + "'"


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[0], "\ufffd"), text)


# Reading


def decode_value(graph: Graph, type_: Type, text: str) -> Any:
    """The value of a field that has this text. Raises `StateError`."""
    return _decoder(graph, type_)(_parsed(text) if isinstance(type_, SetOf | MapOf) else text)


@lru_cache(maxsize=256)
def _decoder(graph: Graph, type_: Type) -> Callable[[Nested], Any]:
    match type_:
        case SetOf(item):
            one = _decoder(graph, item)
            return lambda nested: tuple(map(one, _items(nested)))
        case MapOf(key, value):
            of_key, of_value = _decoder(graph, key), _decoder(graph, value)
            return lambda nested: {of_key(k): of_value(v) for k, v in map(_pair, _items(nested))}
        case EnumOf(name):
            words = {"", *graph.enums[name].values}
            return lambda nested: _scalar(nested, f"one of {name}", lambda text: text if text in words else None)
        case RefTo():
            return lambda nested: _scalar(nested, "a reference", lambda text: text if _REF.fullmatch(text) else None)
    convert = _SCALARS.get(type_)
    if convert is None:
        raise TypeError(f"no field can hold a {type_}")
    return lambda nested: _scalar(nested, str(type_), convert)


def _scalar(nested: Nested, what: str, convert: Callable[[str], Any]) -> Any:
    value = convert(nested) if isinstance(nested, str) else None
    if value is None:
        shown = nested[:QUOTED] if isinstance(nested, str) else "(…)"
        raise StateError(f"{shown!r} is not {what}")
    return value


def _int(text: str) -> int | None:
    number = int(text) if _INT.fullmatch(text) else None
    return number if number is not None and INT_MIN <= number <= INT_MAX else None


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


_SCALARS: Mapping[Type, Callable[[str], Any]] = {
    STRING: lambda text: text,
    INT: _int,
    FLOAT: _float,
    BOOL: {"true": True, "false": False}.get,
    DATETIME: lambda text: text if _DATETIME.fullmatch(text) else None,
}


def _items(nested: Nested) -> list[Nested]:
    if isinstance(nested, str):
        raise StateError(f"{nested[:QUOTED]!r} is not in parentheses")
    return nested


def _pair(nested: Nested) -> Sequence[Nested]:
    items = _items(nested)
    if len(items) != 2:
        raise StateError(f"a pair has two items, this has {len(items)}")
    return items


_DEEPEST = 4


def _parsed(text: str) -> Nested:
    """An S-expression."""
    root: list[Nested] = []
    open_lists, at = [root], 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise StateError(f"{text[at : at + QUOTED]!r} is no expression")
        at = found.end()
        if found[1]:
            if len(open_lists) > _DEEPEST:
                raise StateError("an expression is nested too deep")
            inner: list[Nested] = []
            open_lists[-1].append(inner)
            open_lists.append(inner)
        elif found[2]:
            open_lists.pop()
            if not open_lists:
                raise StateError("an expression has too many parentheses")
        else:
            open_lists[-1].append(found[4] if found[3] is None else _BACKSLASHED.sub(r"\1", found[3]))
    if len(open_lists) != 1 or len(root) != 1:
        raise StateError(f"{text[:QUOTED]!r} is not one expression")
    return root[0]


def _refuse(text: str) -> NoReturn:
    raise StateError(text)


class StateReader:
    """Takes the file piece by piece. `manifest` is there before the first row is given; it is empty until then."""

    def __init__(self) -> None:
        self.manifest: dict[str, str] = {}
        self._rows: list[StateRow] = []
        self._path: list[str] = []
        self._table = ""
        self._tables: set[str] = set()
        self._silent = 0
        self._ended = False
        self._parser = strict_parser(self, _refuse)
        self._parser.ProcessingInstructionHandler = lambda *_: _refuse("processing instructions are not accepted")

    def feed(self, data: bytes) -> list[StateRow]:
        """The rows that are complete now. Raises `StateError`."""
        self._silent += len(data)
        self._parse(data, last=False)
        if self._silent > LONGEST_ROW:
            raise StateError(f"a row has more than {LONGEST_ROW} bytes")
        return self._complete()

    def finish(self) -> list[StateRow]:
        """The bytes are at their end: the rows that had to wait for it. Raises `StateError` when the file is not.

        Newer versions of expat put what came in small pieces off until there is more (its
        `XML_SetReparseDeferralEnabled`).
        """
        self._parse(b"", last=True)
        if not self._ended:
            raise StateError("the file ends too early")
        return self._complete()

    def _complete(self) -> list[StateRow]:
        rows, self._rows = self._rows, []
        return rows

    def _parse(self, data: bytes, *, last: bool) -> None:
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as error:
            raise StateError(f"the XML is malformed: {error}") from error

    # For the parser

    def characters(self, text: str) -> None:
        if text.strip():
            raise StateError("there is text between the elements")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._silent = 0
        match (*self._path, name):
            case ("database",) | ("database", "manifest"):
                if name == "manifest" and self.manifest:
                    raise StateError("there are two manifests")
            case ("database", "manifest", "pair"):
                self.manifest[_need(attributes, "key")] = _need(attributes, "value")
            case ("database", "table"):
                self._table = _need(attributes, "name")
                if not self.manifest or self._table in self._tables:
                    raise StateError("a table comes before the manifest, or twice")
                self._tables.add(self._table)
            case ("database", "table", "row"):
                ref = _need(attributes, "ref")
                if _REF.fullmatch(ref) is None:
                    raise StateError(f"{ref[:QUOTED]!r} is no reference")
                self._rows.append(StateRow(self._table, ref, attributes))
            case _:
                raise StateError(f"the element {name[:QUOTED]!r} is out of place")
        self._path.append(name)

    def end(self, _name: str) -> None:
        self._path.pop()
        self._ended = not self._path


def _need(attributes: Mapping[str, str], name: str) -> str:
    if name not in attributes:
        raise StateError(f"an element lacks {name}")
    return attributes[name]
