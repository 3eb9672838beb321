"""Rows as they are kept on disk: a JSON object from field name to value, derived sets left out.

JSON by name lets a newer version of the datamodel read an older database: fields it does not know are dropped, fields
that are missing get their default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import orjson

from domzero.idl.graph import Graph
from domzero.idl.records import EMPTY_MAP, Layout, Record
from domzero.idl.types import BOOL, FLOAT, INT, EnumOf, MapOf, OptionOf, Primitive, SetOf, Type, parts

Decode: TypeAlias = Callable[[Any], Any]
"""JSON value → value of the API. Raises `ValueError` for a value of another type."""

_ABSENT = object()


class Encoder:
    """Turns the records of one class into stored rows. Safe to use in any thread."""

    def __init__(self, layout: Layout) -> None:
        self._stored = tuple((i, field.name) for i, field in enumerate(layout.fields) if field.inverse is None)
        int_keys = any(_has_other_keys(field.type) for field in layout.fields)
        self._option = orjson.OPT_NON_STR_KEYS if int_keys else 0

    def __call__(self, record: Record) -> str:
        """The record's stored form. The values must have passed `domzero.engine.values`."""
        values = record.values_
        return orjson.dumps({name: values[at] for at, name in self._stored}, option=self._option).decode()


class Decoder:
    """Turns the stored rows of one class into the values of a record.

    Decoders of one database share `shared`, so that equal strings are kept in memory once; it is thrown away after
    loading.
    """

    def __init__(self, graph: Graph, layout: Layout, shared: dict[str, str]) -> None:
        self._plan = tuple(
            (field.name, default, None if field.inverse is not None else _decoder(graph, field.type, shared))
            for field, default in zip(layout.fields, layout.defaults, strict=True)
        )

    def decode(self, stored: Mapping[str, Any]) -> tuple[list[Any], list[tuple[str, str]]]:
        """All values in the layout's order (derived sets empty), and (field, what is wrong) for those replaced by
        their default because the stored value does not fit."""
        values: list[Any] = []
        wrong: list[tuple[str, str]] = []
        for name, default, decode in self._plan:
            value = stored.get(name, _ABSENT)
            if value is _ABSENT or decode is None:
                values.append(default)
                continue
            try:
                values.append(decode(value))
            except (ValueError, TypeError) as error:
                wrong.append((name, str(error)))
                values.append(default)
        return values, wrong


def _has_other_keys(type_: Type) -> bool:
    return any(isinstance(part, MapOf) and part.key in (INT, BOOL, FLOAT) for part in parts(type_))


def _decoder(graph: Graph, type_: Type, shared: dict[str, str]) -> Decode:
    match type_:
        case EnumOf(name):
            return _enum(name, {word: word for word in ("", *graph.enums[name].values)})
        case SetOf(item):
            return _set(_decoder(graph, item, shared))
        case MapOf(key, value):
            return _map(_key(graph, key, shared), _decoder(graph, value, shared))
        case OptionOf(item):
            decode = _decoder(graph, item, shared)
            return lambda value: None if value is None else decode(value)
        case Primitive() if type_ in (INT, BOOL):
            return _exactly(int if type_ == INT else bool)
        case Primitive() if type_ == FLOAT:
            return _float
    return _text(shared.setdefault)


def _text(share: Callable[[str, str], str]) -> Decode:
    def decode(value: Any) -> str:
        if type(value) is not str:
            raise ValueError(f"expected text, found {value!r}")
        return share(value, value)

    return decode


def _enum(name: str, words: dict[str, str]) -> Decode:
    def decode(value: Any) -> str:
        try:
            return words[value]
        except KeyError:
            raise ValueError(f"{value!r} is not in enum {name}") from None

    return decode


def _exactly(kind: type) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"expected {kind.__name__}, found {value!r}")
        return value

    return decode


def _float(value: Any) -> float:
    if type(value) not in (float, int):
        raise ValueError(f"expected a number, found {value!r}")
    return float(value)


def _set(decode: Decode) -> Decode:
    def decode_set(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise ValueError(f"expected a list, found {value!r}")
        return tuple(map(decode, value)) if value else ()

    return decode_set


def _map(decode_key: Decode, decode: Decode) -> Decode:
    def decode_map(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise ValueError(f"expected an object, found {value!r}")
        return {decode_key(k): decode(v) for k, v in value.items()} if value else EMPTY_MAP

    return decode_map


def _key(graph: Graph, type_: Type, shared: dict[str, str]) -> Decode:
    if type_ == INT:
        return int
    if type_ == BOOL:
        return {"true": True, "false": False}.__getitem__
    if type_ == FLOAT:
        return float
    return _decoder(graph, type_, shared)
