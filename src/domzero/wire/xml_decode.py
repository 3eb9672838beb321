"""Decoding of XML-RPC calls and responses.

A call whose parameters are all plain strings (nine in ten: a session and a reference) is recognised by one regular
expression that cannot backtrack, a short one with numbers, booleans and lists of strings (`VM.start`, `event.from`) by
another; everything else goes through expat, with document types, entities and processing beyond the XML-RPC vocabulary
refused. Source: the XML-RPC specification and XenAPI's lenience (`<string>` optional,
`i8`, `nil`, white space between tags).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn
from xml.parsers import expat

from domzero.wire.strict_xml import strict_parser

MAX_DEPTH = 64
"""How deep arrays and structs may be nested. XenAPI's own values need four."""
MAX_VALUES = 50_000
"""How many values one call may carry: what decoding costs is bounded by this, not only by the size of the body."""
TEXT_BUFFER = 65536
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class XmlRpcError(Exception):
    """The body is not an acceptable XML-RPC call or response; the text says why."""


class XmlRpcFaultError(XmlRpcError):
    """A well-formed response that carries a `<fault>`; XenAPI servers use it only outside the API."""

    def __init__(self, code: Any, text: Any) -> None:
        super().__init__(f"fault {code}: {text}")
        self.code = code
        self.text = text


class DateTime(str):
    """The text of a `<dateTime.iso8601>` as it came, stripped; whether it is a date is for the receiver to check."""

    __slots__ = ()


@dataclass(slots=True)
class Call:
    """A decoded call: the method's name as sent and the parameters in order, session first."""

    method: str
    params: list[Any]


# The fast paths. Their text holds nothing that XML treats specially: no markup, references, line ends to be normalised,
# `]]>`, or characters that XML forbids. Nothing in the expressions can backtrack. More parameters go the slow way.
_FAST_PARAMS = 4
_S = r"[ \t\r\n]*+"
_T = r"[^<>&\x00-\x08\x0b-\x1f\ufffe\uffff]*+"


def _call_with(value: str) -> re.Pattern[str]:
    """A whole call whose parameters have such values."""
    param = rf"(?:{_S}<param>{_S}<value>(?:{value})</value>{_S}</param>)?+"
    return re.compile(
        rf"""{_S}(?:<\?xml version=["']1\.0["'](?: encoding=["'][Uu][Tt][Ff]-8["'])?{_S}\?>{_S})?+"""
        rf"<methodCall>{_S}<methodName>{_S}([A-Za-z0-9_.:]++){_S}</methodName>{_S}"
        rf"<params>{param * _FAST_PARAMS}{_S}</params>{_S}</methodCall>{_S}"
    )


_ALL_STRINGS = _call_with(rf"<string>({_T})</string>|({_T})")

_SHORT = 4096
"""Bytes of the calls that may have lists, numbers and booleans too: far fewer than `MAX_VALUES` values."""
_ITEM = re.compile(rf"<value>(?:<string>({_T})</string>|({_T}))</value>{_S}")
_ITEMS = rf"(?:<value>(?:<string>{_T}</string>|{_T})</value>{_S})*+"
_SIMPLE = _call_with(
    rf"<string>({_T})</string>|<boolean>({_T})</boolean>|<double>({_T})</double>|<int>({_T})</int>|<i4>({_T})</i4>"
    rf"|<array>{_S}<data>{_S}({_ITEMS})</data>{_S}</array>|({_T})"
)


def decode_call(body: bytes) -> Call:
    """Decode a `<methodCall>`. Raises `XmlRpcError` and nothing else, whatever the bytes."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return _decode_call_slowly(body)
    match = _ALL_STRINGS.fullmatch(text)
    if match is not None:
        method, *params = match.groups()
        return Call(method, [param for param in params if param is not None])
    match = _SIMPLE.fullmatch(text) if len(text) <= _SHORT else None
    if match is not None:
        method, *params = match.groups()
        pairs = zip(params, _SIMPLE_KINDS * _FAST_PARAMS, strict=True)
        return Call(method, [convert(param) for param, convert in pairs if param is not None])
    return _decode_call_slowly(body)


def _strings(items: str) -> list[str]:
    return [first or second for first, second in _ITEM.findall(items)]


def decode_response(body: bytes) -> Any:
    """Decode the one value of a `<methodResponse>`, the Status struct of XenAPI left as it is.

    Raises `XmlRpcFaultError` for a fault and `XmlRpcError` for anything that is no response.
    """
    root = _parse(body, "methodResponse", max_values=None)
    if root.fault is not None:
        fault = root.fault[0]
        if not isinstance(fault, dict):
            raise XmlRpcError("a fault is not a struct")
        raise XmlRpcFaultError(fault.get("faultCode"), fault.get("faultString"))
    if len(root.params) != 1:
        raise XmlRpcError(f"a response has one value, this has {len(root.params)}")
    return root.params[0]


def decode_value(body: bytes, max_values: int = MAX_VALUES) -> Any:
    """Decode a document that is one `<value>` and nothing else. Raises `XmlRpcError`."""
    return _parse(body, "value", max_values).params[0]


def _decode_call_slowly(body: bytes) -> Call:
    root = _parse(body, "methodCall", max_values=MAX_VALUES)
    if not root.method:
        raise XmlRpcError("the call has no methodName")
    return Call(root.method, root.params)


@dataclass(slots=True)
class _Root:
    method: str = ""
    params: list[Any] = field(default_factory=list)
    fault: list[Any] | None = None


def _parse(body: bytes, root: str, max_values: int | None) -> _Root:
    decoder = _Decoder(root, max_values)
    parser = strict_parser(decoder, _refuse)
    parser.buffer_size = TEXT_BUFFER
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise XmlRpcError(f"the XML is malformed: {error}") from None
    return decoder.root


def _refuse(text: str) -> NoReturn:
    raise XmlRpcError(text)


def _integer(text: str) -> int:
    stripped = text.strip()
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", stripped):
        raise XmlRpcError(f"{text[:40]!r} is no integer")
    value = int(stripped)
    if not INT_MIN <= value <= INT_MAX:
        raise XmlRpcError(f"{stripped} does not fit in 64 bits")
    return value


def _boolean(text: str) -> bool:
    stripped = text.strip()
    if stripped not in ("0", "1"):
        raise XmlRpcError(f"{text[:40]!r} is no boolean: only 0 and 1 are")
    return stripped == "1"


_DOUBLE = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?|[+-]?inf|nan", re.IGNORECASE)


def _double(text: str) -> float:
    stripped = text.strip()
    if not _DOUBLE.fullmatch(stripped):
        raise XmlRpcError(f"{text[:40]!r} is no double")
    return float(stripped)


def _base64(text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise XmlRpcError(f"malformed base64: {error}") from None


def _nothing(text: str) -> None:
    if text.strip():
        raise XmlRpcError("nil has no content")


_SCALARS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "int": _integer,
    "i4": _integer,
    "i8": _integer,
    "boolean": _boolean,
    "double": _double,
    "dateTime.iso8601": lambda text: DateTime(text.strip()),
    "base64": _base64,
    "nil": _nothing,
}

_SIMPLE_KINDS: tuple[Callable[[str], Any], ...] = (str, _boolean, _double, _integer, _integer, _strings, str)
"""What becomes of the groups of one parameter in `_SIMPLE`."""

_CHILDREN: dict[str, frozenset[str]] = {
    "methodCall": frozenset({"methodName", "params"}),
    "methodResponse": frozenset({"params", "fault"}),
    "params": frozenset({"param"}),
    "param": frozenset({"value"}),
    "fault": frozenset({"value"}),
    "value": frozenset(_SCALARS) | {"array", "struct"},
    "array": frozenset({"data"}),
    "data": frozenset({"value"}),
    "struct": frozenset({"member"}),
    "member": frozenset({"name", "value"}),
}
_ONCE = frozenset({"methodName", "params", "fault", "name", "data"})
_SINGLE = frozenset({"param", "fault", "member"})


class _Element:
    """An element being read. `children` holds decoded values, `seen` how many child elements there were."""

    __slots__ = ("allowed", "children", "name", "pieces", "seen")

    def __init__(self, name: str) -> None:
        self.name = name
        self.allowed = _CHILDREN.get(name)
        self.children: list[Any] = []
        self.seen: set[str] = set()
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class _Decoder:
    """Handlers for expat that accept the XML-RPC vocabulary and nothing else, and build values on the way."""

    def __init__(self, root: str, max_values: int | None) -> None:
        self.root = _Root()
        self._name = root
        self._stack: list[_Element] = []
        self._max_values = self._values_left = max_values
        self._depth = 0

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        if not self._stack:
            if name != self._name:
                raise XmlRpcError(f"expected {self._name}, found {name[:40]}")
        else:
            self._check_child(self._stack[-1], name)
        if name == "value":
            self._count_value()
        elif name in ("array", "struct"):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise XmlRpcError(f"nested deeper than {MAX_DEPTH}")
        self._stack.append(_Element(name))

    def _check_child(self, parent: _Element, name: str) -> None:
        if parent.allowed is None or name not in parent.allowed:
            raise XmlRpcError(f"{name[:40]} is not allowed inside {parent.name}")
        if parent.name == "value":
            if parent.seen:
                raise XmlRpcError("a value has more than one type")
            if parent.text.strip():
                raise XmlRpcError("a value has both text and a type")
        elif name in parent.seen and (name in _ONCE or parent.name in _SINGLE):
            raise XmlRpcError(f"{parent.name} has more than one {name}")
        if parent.name == "member" and name == "value" and "name" not in parent.seen:
            raise XmlRpcError("a member's name comes before its value")
        parent.seen.add(name)

    def _count_value(self) -> None:
        if self._values_left is not None:
            self._values_left -= 1
            if self._values_left < 0:
                raise XmlRpcError(f"more than {self._max_values} values")

    def characters(self, text: str) -> None:
        element = self._stack[-1]
        if element.allowed is None:
            element.pieces.append(text)
        elif element.name == "value":
            if element.seen and text.strip():
                raise XmlRpcError("a value has both text and a type")
            element.pieces.append(text)
        elif text.strip():
            raise XmlRpcError(f"text is not allowed inside {element.name}")

    def end(self, name: str) -> None:
        element = self._stack.pop()
        children = element.children
        if name in _SCALARS:
            self._give(_SCALARS[name](element.text))
        elif name == "value":
            self._give(children[0] if element.seen else element.text)
        elif name == "array":
            self._depth -= 1
            self._give(children[0] if children else [])
        elif name == "struct":
            self._depth -= 1
            self._give(dict(children))
        elif name == "data":
            self._give(children)
        elif name == "member":
            self._give(_member(element))
        elif name == "name":
            self._give(element.text)
        else:
            self._end_outer(name, element)

    def _give(self, value: Any) -> None:
        if self._stack:
            self._stack[-1].children.append(value)
        else:
            self.root.params.append(value)

    def _end_outer(self, name: str, element: _Element) -> None:
        match name:
            case "methodName":
                self.root.method = element.text.strip()
            case "param":
                if not element.seen:
                    raise XmlRpcError("a param has no value")
                self.root.params.extend(element.children)
            case "fault":
                if not element.seen:
                    raise XmlRpcError("a fault has no value")
                self.root.fault = element.children
            case _:
                return


def _member(element: _Element) -> tuple[str, Any]:
    if element.seen != {"name", "value"}:
        raise XmlRpcError("a member needs a name and a value")
    name, value = element.children
    return name, value
