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
from domzero.idl.types import BOOL, FLOAT, INT, EnumOf, MapOf, OptionOf, Primitive, RefTo, SetOf, Type, parts

Decode: TypeAlias = Callable[[Any], Any]
"""JSON value → value of the API. Raises `ValueError` for a value of another type."""


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
        self._defaults = layout.defaults
        self._share = shared.setdefault
        stored = [(at, field) for at, field in enumerate(layout.fields) if field.inverse is None]
        self._plan = [(at, field.name, _decoder(graph, field.type, shared)) for at, field in stored]
        self._texts = [(at, field.name) for at, field in stored if _is_text(field.type)]
        self._plain = [(at, field.name, _PLAIN[field.type]) for at, field in stored if field.type in _PLAIN]
        done = {at for at, _ in self._texts} | {at for at, _, _ in self._plain}
        self._rest = [step for step in self._plan if step[0] not in done]

    def decode(self, stored: Mapping[str, Any]) -> tuple[list[Any], list[tuple[str, str]]]:
        """All values in the layout's order (derived sets empty), and (field, what is wrong) for those replaced by
        their default because the stored value does not fit."""
        try:
            return self._decode_whole(stored), []
        except (KeyError, ValueError):
            return self._decode_each(stored)

    def _decode_whole(self, stored: Mapping[str, Any]) -> list[Any]:
        """The fast way, for rows that are as this version writes them: a start reads millions of fields."""
        values = list(self._defaults)
        share = self._share
        for at, name in self._texts:
            value = stored[name]
            if type(value) is not str:
                raise ValueError(name)
            values[at] = share(value, value)
        for at, name, kind in self._plain:
            value = stored[name]
            if type(value) is not kind:
                raise ValueError(name)
            values[at] = value
        for at, name, decode in self._rest:
            values[at] = decode(stored[name])
        return values

    def _decode_each(self, stored: Mapping[str, Any]) -> tuple[list[Any], list[tuple[str, str]]]:
        values = list(self._defaults)
        wrong = []
        for at, name, decode in self._plan:
            if name in stored:
                try:
                    values[at] = decode(stored[name])
                except ValueError as error:
                    wrong.append((name, str(error)))
        return values, wrong


_PLAIN: dict[Type, type] = {INT: int, BOOL: bool}


def _is_text(type_: Type) -> bool:
    return isinstance(type_, RefTo) or (isinstance(type_, Primitive) and type_ not in (INT, BOOL, FLOAT))


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
        except (KeyError, TypeError):
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
        return _bool_key
    if type_ == FLOAT:
        return float
    return _decoder(graph, type_, shared)


def _bool_key(key: str) -> bool:
    if key not in ("true", "false"):
        raise ValueError(f"expected true or false, found {key!r}")
    return key == "true"
