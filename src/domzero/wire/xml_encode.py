"""Encoding of answers as XML-RPC, by API type.

An encoder is compiled once per type. Types without records become text, which is encoded in one go; records become
bytes at once and are kept on the record, so that a map of ten thousand records is one join. How values look on the wire
(integers as strings of digits, `dateTime.iso8601`, the Status struct) is XenAPI's wire protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from domzero.idl.model import Class, Field
from domzero.idl.records import Layout, Record
from domzero.idl.types import (
    ANY_RECORD,
    BOOL,
    DATETIME,
    EVENT_BATCH,
    FLOAT,
    INT,
    STRING,
    VOID,
    EnumOf,
    MapOf,
    OptionOf,
    Primitive,
    RecordOf,
    RefTo,
    SetOf,
    Type,
)

TextEncoder = Callable[[Any], str]
"""From a value to its `<value>…</value>` as text."""
PartsEncoder = Callable[[Any], list[bytes]]
"""From a value to its `<value>…</value>` as UTF-8, in pieces, so that a large answer is put together only once."""

_SPECIAL = re.compile("[<>&\"'\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
# A carriage return travels as a reference, because a parser would turn a bare one into a line feed.
_REPLACEMENTS = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&apos;", "\r": "&#13;"}

_PROLOGUE = b'<?xml version="1.0"?><methodResponse><params><param>'
_EPILOGUE = b"</param></params></methodResponse>"
_SUCCESS = (
    _PROLOGUE + b"<value><struct><member><name>Status</name><value>Success</value></member><member><name>Value</name>"
)
_FAILURE = (
    _PROLOGUE + b"<value><struct><member><name>Status</name><value>Failure</value></member>"
    b"<member><name>ErrorDescription</name><value><array><data>"
)
_SUCCESS_END = b"</member></struct></value>" + _EPILOGUE
_FAILURE_END = b"</data></array></value></member></struct></value>" + _EPILOGUE


# Around and between the structs of a map of records, whose places are marked by the one character no name can contain.
_RECORDS_START = "<value><struct><member><name>"
_BETWEEN = "</name><value>\0</value></member><member><name>"
_RECORDS_END = "</name><value>\0</value></member></struct></value>"
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_."


def escape(text: str) -> str:
    """Text for the inside of an element. Characters that XML 1.0 cannot carry are dropped."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda match: _REPLACEMENTS.get(match.group(), ""), text)


def encode_failure(description: Iterable[str]) -> bytes:
    """A whole response with Status Failure. The description is the error's code and its parameters."""
    values = "".join(f"<value>{escape(part)}</value>" for part in description)
    return _FAILURE + values.encode() + _FAILURE_END


class Model(Protocol):
    """What encoding needs to know of the graph: the fields of structs that come as plain dicts."""

    @property
    def classes(self) -> Mapping[str, Class]: ...


class XmlEncoder:
    """Encodes answers of a graph's types. Encoders are compiled when a type is first met, then kept.

    Values are trusted to be of their types; one that is not may raise `TypeError`, `ValueError`, `AttributeError` or
    `KeyError`, which is a defect of whoever made the value.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._encoders: dict[Type, PartsEncoder] = {}
        self._layouts: dict[Layout, Members] = {}
        self._structs: dict[str, Members] = {}

    def answer_parts(self, type_: Type, value: Any, bare: bool = False) -> list[bytes]:
        """A whole response, in pieces: with Status Success, or with the naked value where that is asked for.

        The pieces of a large answer are the records' own kept bytes: sending them one by one copies nothing.
        """
        encoder = self._encoders.get(type_) or self._compile(type_)
        if bare:
            return [_PROLOGUE, *encoder(value), _EPILOGUE]
        return [_SUCCESS, *encoder(value), _SUCCESS_END]

    def encode_answer(self, type_: Type, value: Any, bare: bool = False) -> bytes:
        """The same in one piece."""
        return b"".join(self.answer_parts(type_, value, bare))

    def encode(self, type_: Type, value: Any) -> bytes:
        """The `<value>…</value>` of a value."""
        encoder = self._encoders.get(type_) or self._compile(type_)
        return b"".join(encoder(value))

    def encode_text(self, type_: Type, value: Any) -> str:
        """The same as text, as `task.result` holds it."""
        return self.encode(type_, value).decode()

    def _compile(self, type_: Type) -> PartsEncoder:
        """Bytes all the way for the types whose answers are large, text for the rest."""
        encoder = self._encoders[type_] = self._parts_encoder(type_)
        return encoder

    def _parts_encoder(self, type_: Type) -> PartsEncoder:
        match type_:
            case RecordOf(cls):
                return lambda value: [b"<value>", self._struct(cls, value), b"</value>"]
            case SetOf(RecordOf(cls)):
                return lambda value: _array([self._struct(cls, item) for item in value])
            case MapOf(key, RecordOf(cls)):
                return self._records_encoder(key, cls)
        if type_ == EVENT_BATCH:
            return self._event_batch
        text = self._text(type_)
        return lambda value: [text(value).encode()]

    def _records_encoder(self, key: Type, cls: str) -> PartsEncoder:
        """For maps of records, which may be ten thousand: what is done for each of them is done in C.

        The text between two records is made for all at once, by one join and one split.
        """
        key_text = _key_text(key)

        def encode(value: Mapping[Any, Any]) -> list[bytes]:
            if not value:
                return [b"<value><struct></struct></value>"]
            plain = isinstance(key, RefTo) and not "".join(value).encode().translate(None, _PLAIN)
            names: Iterable[str] = value if plain else map(key_text, value)
            glue = f"{_RECORDS_START}{_BETWEEN.join(names)}{_RECORDS_END}".encode().split(b"\0")
            parts = [b""] * (2 * len(glue) - 1)
            parts[0::2] = glue
            parts[1::2] = [
                (record.xml if type(record) is Record else None) or self._struct(cls, record)
                for record in value.values()
            ]
            return parts

        return encode

    def _struct(self, cls: str, value: Any) -> bytes:
        """The `<struct>…</struct>` of a record: kept if it is a `Record`, made from the class's fields if a dict."""
        if isinstance(value, Record):
            return value.xml or self._encode_record(value)
        members = self._structs.get(cls)
        if members is None:
            members = self._structs[cls] = self._members(self._model.classes[cls].fields)
        found = "".join([
            f"{start}{encoder(value[name])}</member>"
            for name, start, encoder in members
            if value.get(name) is not None
        ])  # fmt: skip
        return f"<struct>{found}</struct>".encode()

    def _encode_record(self, record: Record) -> bytes:
        members = self._layouts.get(record.layout)
        if members is None:
            members = self._layouts[record.layout] = self._members(record.layout.fields)
        found = "".join([
            f"{start}{encoder(value)}</member>"
            for (_, start, encoder), value in zip(members, record.values_, strict=True)
            if value is not None
        ])  # fmt: skip
        record.xml = f"<struct>{found}</struct>".encode()
        return record.xml

    def _members(self, fields: Iterable[Field]) -> Members:
        return tuple(
            (field.name, f"<member><name>{escape(field.name)}</name>", self._text(field.type)) for field in fields
        )

    def _event_batch(self, batch: Mapping[str, Any]) -> list[bytes]:
        """The result of `event.from`. The counts are the only real integers that XenAPI sends."""
        counts = "".join(
            f"<member><name>{escape(cls)}</name><value><i4>{int(count)}</i4></value></member>"
            for cls, count in batch["valid_ref_counts"].items()
        )
        return [
            b"<value><struct><member><name>events</name>",
            *_array([self._event(event) for event in batch["events"]]),
            f"</member><member><name>valid_ref_counts</name><value><struct>{counts}</struct></value></member>"
            f"<member><name>token</name>{_string(batch['token'])}</member></struct></value>".encode(),
        ]

    def _event(self, event: Mapping[str, Any]) -> bytes:
        members = "".join([
            f"<member><name>{name}</name>{encoder(event[name])}</member>"
            for name, encoder in _EVENT_MEMBERS
            if event.get(name) is not None
        ])  # fmt: skip
        snapshot = event.get("snapshot")
        if snapshot is None:
            return f"<struct>{members}</struct>".encode()
        return b"".join((
            f"<struct>{members}<member><name>snapshot</name><value>".encode(),
            snapshot.xml or self._encode_record(snapshot),
            b"</value></member></struct>",
        ))  # fmt: skip

    def _text(self, type_: Type) -> TextEncoder:
        match type_:
            case Primitive():
                return self._snapshot_text if type_ == ANY_RECORD else _SCALARS[type_]
            case EnumOf() | RefTo():
                return _string
            case SetOf(item):
                return _text_array(self._text(item))
            case MapOf(key, value):
                return _text_struct(_key_text(key), self._text(value))
            case OptionOf(item):
                return _text_option(self._text(item))
            case RecordOf(cls):
                return lambda record: f"<value>{self._struct(cls, record).decode()}</value>"

    def _snapshot_text(self, record: Record) -> str:
        return f"<value>{(record.xml or self._encode_record(record)).decode()}</value>"


Members = tuple[tuple[str, str, TextEncoder], ...]
"""Of a struct's members: the name, `<member><name>…</name>`, and the encoder of the value."""


def _string(value: str) -> str:
    return f"<value>{value if _SPECIAL.search(value) is None else escape(value)}</value>"


def _int(value: int) -> str:
    return f"<value>{value:d}</value>"


def _bool(value: bool) -> str:
    return "<value><boolean>1</boolean></value>" if value else "<value><boolean>0</boolean></value>"


def _float(value: float) -> str:
    """The shortest text that reads back as the same number; `inf` and `nan` are words, which do no harm to the XML."""
    return f"<value><double>{float(value)!r}</double></value>"


def _datetime(value: str) -> str:
    return f"<value><dateTime.iso8601>{escape(value)}</dateTime.iso8601></value>"


def _void(_: Any) -> str:
    return "<value></value>"


_SCALARS: Mapping[Type, TextEncoder] = {
    STRING: _string, INT: _int, BOOL: _bool, FLOAT: _float, DATETIME: _datetime, VOID: _void,
}  # fmt: skip

_EVENT_MEMBERS: tuple[tuple[str, TextEncoder], ...] = (
    ("id", lambda value: _string(str(value))),
    ("timestamp", _datetime),
    ("class", _string),
    ("operation", _string),
    ("ref", _string),
    ("obj_uuid", _string),
)


def _array(structs: list[bytes]) -> list[bytes]:
    parts = [b"</value><value>"] * (2 * len(structs) + 1)
    parts[1::2] = structs
    if not structs:
        return [b"<value><array><data></data></array></value>"]
    parts[0] = b"<value><array><data><value>"
    parts[-1] = b"</value></data></array></value>"
    return parts


def _text_array(item: TextEncoder) -> TextEncoder:
    def encode(value: Iterable[Any]) -> str:
        return f"<value><array><data>{''.join(map(item, value))}</data></array></value>"

    return encode


def _text_struct(key: Callable[[Any], str], item: TextEncoder) -> TextEncoder:
    def encode(value: Mapping[Any, Any]) -> str:
        if not value:
            return "<value><struct></struct></value>"
        members = "".join([f"<member><name>{key(k)}</name>{item(v)}</member>" for k, v in value.items()])
        return f"<value><struct>{members}</struct></value>"

    return encode


def _text_option(item: TextEncoder) -> TextEncoder:
    def encode(value: Any) -> str:
        return "<value><nil/></value>" if value is None else item(value)

    return encode


def _key_text(type_: Type) -> Callable[[Any], str]:
    """How a map's key looks as a member name: keys are strings on the wire whatever their type."""
    if type_ == BOOL:
        return lambda value: "true" if value else "false"
    if type_ in (INT, FLOAT):
        return str
    return escape
