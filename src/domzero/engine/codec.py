"""Rows as they are kept on disk: a JSON object from field name to value, derived sets left out.

JSON by name lets a newer version of the datamodel read an older database: fields it does not know are dropped, fields
that are missing get their default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import repeat
from operator import countOf, itemgetter
from typing import Any, NamedTuple, TypeAlias

import orjson

from domzero.idl.graph import Graph
from domzero.idl.model import Field
from domzero.idl.records import EMPTY_MAP, Layout, Record
from domzero.idl.types import BOOL, FLOAT, INT, EnumOf, MapOf, OptionOf, Primitive, SetOf, Type, parts

Convert: TypeAlias = Callable[[Collection[Any]], Iterable[Any]]
"""JSON values of one type → values of the API, in the same order. Raises `ValueError`, perhaps only while the result is
read, when one of them is of another type. A start reads millions of values, so all steps take many at once."""


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


class Misfit(NamedTuple):
    """A stored value that its field cannot hold: which of the rows given, which field, and what is wrong."""

    row: int
    field: str
    text: str


class Decoder:
    """Turns the stored rows of one class into the values of records.

    Decoders of one database share `shared`, so that equal strings are kept in memory once; it is thrown away after
    loading.
    """

    def __init__(self, graph: Graph, layout: Layout, shared: dict[str, str]) -> None:
        self._defaults = layout.defaults
        self._converts = [_of_field(graph, field, shared) for field in layout.fields]
        stored = [field.name for field in layout.fields if field.inverse is None]
        # Of one name alone an itemgetter gives the value itself.
        self._get = itemgetter(*stored) if len(stored) > 1 else lambda fields: (fields[stored[0]],)
        self._plan = [
            (at, name, convert)
            for at, (name, convert) in enumerate(zip(layout.names, self._converts, strict=True))
            if convert is not None
        ]

    def decode(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[Any, ...]], list[Misfit]]:
        """The values of some rows, at least one, in the layout's order; derived sets are empty. A stored value that
        does not fit is replaced by its field's default and told of."""
        try:
            return self._decode_all(rows), []
        except (KeyError, ValueError):
            return self._decode_each(rows)

    def _decode_all(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """The fast way, field by field, for rows that are as this version writes them."""
        fields = iter(zip(*map(self._get, rows), strict=True))
        none = [()] * len(rows)
        values = [none if convert is None else convert(next(fields)) for convert in self._converts]
        return list(zip(*values, strict=True))

    def _decode_each(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[Any, ...]], list[Misfit]]:
        found = []
        wrong: list[Misfit] = []
        for index, stored in enumerate(rows):
            values = list(self._defaults)
            for at, name, convert in self._plan:
                if name in stored:
                    try:
                        values[at] = next(iter(convert((stored[name],))))
                    except ValueError as error:
                        wrong.append(Misfit(index, name, str(error)))
            found.append(tuple(values))
        return found, wrong


def _has_other_keys(type_: Type) -> bool:
    return any(isinstance(part, MapOf) and part.key in (INT, BOOL, FLOAT) for part in parts(type_))


def _of_field(graph: Graph, field: Field, shared: dict[str, str]) -> Convert | None:
    """The conversion for a field; none for a derived set."""
    if field.inverse is not None:
        return None
    if field.name == "uuid":
        return _unique_text
    convert = _convert(graph, field.type, shared)
    # Equal values are not always of one type: True is 1.
    return convert if {INT, BOOL, FLOAT} & set(parts(field.type)) else _often_alike(convert)


def _often_alike(convert: Convert) -> Convert:
    """Most fields have the same value in most objects, which is then converted once."""

    def convert_alike(values: Collection[Any]) -> Iterable[Any]:
        first = next(iter(values))
        alike = countOf(values, first) == len(values)
        return repeat(next(iter(convert((first,)))), len(values)) if alike else convert(values)

    return convert_alike


def _convert(graph: Graph, type_: Type, shared: dict[str, str]) -> Convert:
    match type_:
        case EnumOf(name):
            return _enum(name, ("", *graph.enums[name].values))
        case SetOf(item):
            return _set(_convert(graph, item, shared))
        case MapOf(key, value):
            return _map(_key(graph, key, shared), _convert(graph, value, shared))
        case OptionOf(item):
            return _option(_convert(graph, item, shared))
        case Primitive() if type_ in (INT, BOOL):
            return _exactly(int if type_ == INT else bool)
        case Primitive() if type_ == FLOAT:
            return _float
    return _text(shared)


def _check(values: Collection[Any], what: str, *kinds: type) -> None:
    if not set(map(type, values)).issubset(kinds):
        found = next(value for value in values if type(value) not in kinds)
        raise ValueError(f"expected {what}, found {found!r}")


def _text(shared: dict[str, str]) -> Convert:
    share = shared.setdefault

    def convert(values: Collection[Any]) -> Iterable[str]:
        _check(values, "text", str)
        return map(share, values, values)

    return convert


def _unique_text(values: Collection[Any]) -> Iterable[str]:
    _check(values, "text", str)
    return values


def _enum(name: str, words: Iterable[str]) -> Convert:
    word = {word: word for word in words}

    def convert(values: Collection[Any]) -> Iterable[str]:
        try:
            return list(map(word.__getitem__, values))
        except (KeyError, TypeError):
            found = next(value for value in values if type(value) is not str or value not in word)
            raise ValueError(f"{found!r} is not in enum {name}") from None

    return convert


def _exactly(kind: type) -> Convert:
    def convert(values: Collection[Any]) -> Iterable[Any]:
        _check(values, kind.__name__, kind)
        return values

    return convert


def _float(values: Collection[Any]) -> Iterable[float]:
    _check(values, "a number", float, int)
    return map(float, values)


def _option(convert_some: Convert) -> Convert:
    def convert(values: Collection[Any]) -> Iterable[Any]:
        return [None if value is None else next(iter(convert_some((value,)))) for value in values]

    return convert


def _set(convert_items: Convert) -> Convert:
    def convert(values: Collection[Any]) -> Iterable[tuple[Any, ...]]:
        _check(values, "a list", list)
        return (
            [tuple(convert_items(value)) if value else () for value in values]
            if any(values)
            else repeat((), len(values))
        )

    return convert


def _map(convert_keys: Convert, convert_values: Convert) -> Convert:
    def convert(values: Collection[Any]) -> Iterable[dict[Any, Any]]:
        _check(values, "an object", dict)
        return [
            dict(zip(convert_keys(value.keys()), convert_values(value.values()), strict=True)) if value else EMPTY_MAP
            for value in values
        ]

    return convert


def _key(graph: Graph, type_: Type, shared: dict[str, str]) -> Convert:
    if type_ == INT:
        return lambda keys: map(int, keys)
    if type_ == BOOL:
        return lambda keys: map(_bool_key, keys)
    if type_ == FLOAT:
        return lambda keys: map(float, keys)
    return _convert(graph, type_, shared)


def _bool_key(key: str) -> bool:
    if key not in ("true", "false"):
        raise ValueError(f"expected true or false, found {key!r}")
    return key == "true"
