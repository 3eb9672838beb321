"""From decoded parameters to the values that stand for API types inside (`domzero.idl.types` lists them).

A codec hands over what the wire said: `str`, `int`, `float`, `bool`, `None`, lists and dicts. A coercer checks such a
value against an API type and gives the inner value, or raises `ApiError`; nothing else ever leaves it, whatever the
input. Coercers are compiled once per parameter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeAlias

from domzero.engine.errors import ApiError
from domzero.idl.graph import Graph
from domzero.idl.implicit import constructor_fields
from domzero.idl.model import MISSING, Class
from domzero.idl.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    NULL_REF,
    STRING,
    EnumOf,
    MapOf,
    OptionOf,
    RecordOf,
    RefTo,
    SetOf,
    Type,
)

Coercer: TypeAlias = Callable[[Any], Any]

QUOTED = 200
"""Characters of a refused value that an error quotes."""

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML cannot carry (XML 1.0, section 2.2). The same said by what it can takes milliseconds to compile."""
_DIGITS = re.compile(r"[+-]?[0-9]{1,20}")
_DATETIME = re.compile(
    r"(\d{4})(-?)(\d\d)\2(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:(Z)|([+-])(\d\d):?(\d\d))?", re.ASCII
)


def coercer(graph: Graph, type_: Type, where: str) -> Coercer:
    """A function from wire values to values of the type; `where` is the parameter's name, for errors.

    Raises `TypeError` for types that no parameter may have (`void`, event batches).
    """
    match type_:
        case SetOf(item):
            return _set(type_, coercer(graph, item, where))
        case MapOf(key, value):
            return _map(type_, coercer(graph, key, where), coercer(graph, value, where))
        case OptionOf(item):
            return _option(coercer(graph, item, where))
        case EnumOf(name):
            return _enum(type_, frozenset(graph.enums[name].values), where)
        case RefTo():
            return _ref(type_)
        case RecordOf(name):
            return _record(graph, graph.classes[name])
    scalar = {STRING: _string, INT: _int, BOOL: _bool, FLOAT: _float(where), DATETIME: _datetime(where)}.get(type_)
    if scalar is None:
        raise TypeError(f"{where}: no parameter can be of type {type_}")
    return scalar


def printable(text: str) -> str:
    """The text with everything that XML cannot carry replaced, and no longer than an error should be."""
    return _FORBIDDEN.sub("\ufffd", text[:QUOTED])


def mismatch(expected: object, received: Any) -> ApiError:
    """`XMLRPC_UNMARSHAL_FAILURE`: what the type is, and what came, as XML text cut short."""
    return ApiError("XMLRPC_UNMARSHAL_FAILURE", str(expected), printable(_as_xml(received)))


def _as_xml(value: Any) -> str:
    match value:
        case bool():
            inner = f"<boolean>{int(value)}</boolean>"
        case int():
            inner = f"<int>{value if abs(value) < 1 << 64 else 'beyond 64 bits'}</int>"
        case float():
            inner = f"<double>{value!r}</double>"
        case str():
            inner = value[:QUOTED].replace("&", "&amp;").replace("<", "&lt;")
        case list() | tuple():
            inner = f"<array>{len(value)} values</array>"
        case dict():
            inner = f"<struct>{len(value)} members</struct>"
        case None:
            inner = "<nil/>"
        case _:
            inner = f"<{type(value).__name__}/>"
    return f"<value>{inner}</value>"


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise mismatch(STRING, value)
    if _FORBIDDEN.search(value) is not None:
        raise ApiError("INVALID_VALUE", "Invalid UTF-8 string in parameter", printable(value))
    return value


def _int(value: Any) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value) is not None:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
        raise mismatch(INT, value)
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise mismatch(BOOL, value)
    return value


def _float(where: str) -> Coercer:
    def coerce(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise mismatch(FLOAT, value)
        try:
            number = float(value)
        except OverflowError:
            raise mismatch(FLOAT, value) from None
        if not math.isfinite(number):
            raise ApiError("INVALID_VALUE", where, str(number))
        return number

    return coerce


def _datetime(where: str) -> Coercer:
    def coerce(value: Any) -> str:
        if not isinstance(value, str):
            raise mismatch(DATETIME, value)
        text = canonical_datetime(value)
        if text is None:
            raise ApiError("INVALID_VALUE", where, printable(value))
        return text

    return coerce


def canonical_datetime(text: str) -> str | None:
    """An ISO 8601 moment, compact or dashed, with or without an offset (then UTC), as `YYYYMMDDTHH:MM:SSZ`.

    None when it is no such moment.
    """
    found = _DATETIME.fullmatch(text)
    if found is None:
        return None
    year, _, month, day, hour, minute, second, _, sign, east_hours, east_minutes = found.groups()
    zone: timezone = UTC
    try:
        if sign is not None:
            offset = timedelta(hours=int(east_hours), minutes=int(east_minutes))
            zone = timezone(-offset if sign == "-" else offset)
        when = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=zone)
        utc = when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    # strftime does not pad years before 1000 on every platform.
    return f"{utc.year:04}{utc:%m%dT%H:%M:%SZ}"


def _enum(type_: EnumOf, values: frozenset[str], where: str) -> Coercer:
    def coerce(value: Any) -> str:
        if not isinstance(value, str):
            raise mismatch(type_, value)
        word = _string(value)
        if word not in values:
            raise ApiError("INVALID_VALUE", where, printable(word))
        return word

    return coerce


def _ref(type_: RefTo) -> Coercer:
    def coerce(value: Any) -> str:
        if not isinstance(value, str):
            raise mismatch(type_, value)
        # Several bindings send an empty string for “no object”.
        return _string(value) or NULL_REF

    return coerce


def _set(type_: SetOf, item: Coercer) -> Coercer:
    def coerce(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise mismatch(type_, value)
        return tuple([item(entry) for entry in value])

    return coerce


def _map(type_: MapOf, key: Coercer, item: Coercer) -> Coercer:
    def coerce(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise mismatch(type_, value)
        return {key(name): item(entry) for name, entry in value.items()}

    return coerce


def _option(item: Coercer) -> Coercer:
    def coerce(value: Any) -> Any:
        return None if value is None else item(value)

    return coerce


def _record(graph: Graph, cls: Class) -> Coercer:
    """The fields that a constructor takes, defaults filled in. Members that are not among them are ignored, so that
    clients of later releases and clients that send a whole record back are served.
    """
    fields = constructor_fields(cls)
    members: Mapping[str, Coercer] = {f.name: coercer(graph, f.type, f.name) for f in fields}

    def coerce(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise mismatch(RecordOf(cls.name), value)
        record: dict[str, Any] = {}
        for field in fields:
            if field.name in value:
                record[field.name] = members[field.name](value[field.name])
            elif field.default is MISSING:
                raise ApiError("INVALID_VALUE", f"{cls.name}.{field.name}", "missing, and there is no default")
            else:
                record[field.name] = field.default
        return record

    return coerce
