"""Values, types that fit them, and calls, for the codecs' property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from domzero.idl.types import BOOL, DATETIME, FLOAT, INT, STRING, EnumOf, MapOf, OptionOf, RefTo, SetOf, Type

Pair = tuple[Type, Any]

# What XML 1.0 can carry; a carriage return included, since it is sent as a reference.
XML_TEXT = st.text(
    st.characters(codec="utf-8").filter(lambda c: c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))
)
ANY_TEXT = st.text(st.characters(exclude_categories=()))
INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False)

SCALARS: list[tuple[Type, st.SearchStrategy[Any]]] = [
    (STRING, XML_TEXT),
    (INT, INTS),
    (BOOL, st.booleans()),
    (FLOAT, FLOATS),
    (DATETIME, st.just("20080301T12:00:00Z")),
    (RefTo("box"), st.just("OpaqueRef:NULL")),
    (EnumOf("colour"), st.sampled_from(["red", "blue"])),
]


def typed_values() -> st.SearchStrategy[Pair]:
    """A type and a value of it."""
    return types().flatmap(lambda type_: values_of(type_).map(lambda value: (type_, value)))


def types() -> st.SearchStrategy[Type]:
    """Any API type made of scalars, sets, maps and options."""
    scalars = st.sampled_from([type_ for type_, _ in SCALARS])
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            inner.map(SetOf), st.builds(MapOf, st.sampled_from([STRING, INT, RefTo("box")]), inner), inner.map(OptionOf)
        ),
        max_leaves=4,
    )


def values_of(type_: Type) -> st.SearchStrategy[Any]:
    """Values of a type."""
    match type_:
        case SetOf(item):
            return st.lists(values_of(item), max_size=4).map(tuple)
        case MapOf(key, value):
            return st.dictionaries(values_of(key), values_of(value), max_size=4)
        case OptionOf(item):
            return st.none() if isinstance(item, OptionOf) else st.none() | values_of(item)
    return dict(SCALARS)[type_]


def on_the_xml_wire(type_: Type, value: Any) -> Any:
    """What a client reads for a value: integers as digits, keys as strings."""
    match type_:
        case SetOf(item):
            return [on_the_xml_wire(item, element) for element in value]
        case MapOf(_, item):
            return {str(key): on_the_xml_wire(item, element) for key, element in value.items()}
        case OptionOf(item):
            return None if value is None else on_the_xml_wire(item, value)
    return str(value) if type_ == INT else value


WIRE_VALUES = st.recursive(
    st.one_of(XML_TEXT, st.booleans(), FLOATS, st.none(), st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(XML_TEXT, inner, max_size=4),
    max_leaves=12,
)
"""What a client may send and get back unchanged."""
METHODS = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_.:]{0,40}\Z")
