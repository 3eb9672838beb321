"""A parser for XML from strangers: no document types, no entities, and only encodings that expat knows by itself.

Every document is read with it, whatever its vocabulary: what XML allows and we never need is refused in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NoReturn, Protocol
from xml.parsers import expat

ENCODINGS = frozenset({"utf-8", "us-ascii", "iso-8859-1", "utf-16"})
"""The encodings that expat itself knows. Any other name would make Python look for a codec, on a stranger's word."""
QUOTED = 40
"""Characters of a stranger's word that an error repeats."""


class Elements(Protocol):
    """Takes what is in a document, in its order. What it raises ends the parsing."""

    def start(self, name: str, attributes: dict[str, str], /) -> None: ...
    def end(self, name: str, /) -> None: ...
    def characters(self, text: str, /) -> None: ...


def strict_parser(
    elements: Elements, refuse: Callable[[str], NoReturn], encodings: Collection[str] = ENCODINGS
) -> expat.XMLParserType:
    """A parser to be fed. `refuse` raises the caller's error with a text that says what is not accepted.

    Neighbouring text is joined, up to expat's buffer. What is not well-formed raises `expat.ExpatError` from `Parse`.
    """

    def declaration(_version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in encodings:
            refuse(f"the encoding {encoding[:QUOTED]} is not accepted")

    def doctype(*_: Any) -> None:
        refuse("document types and entities are not accepted")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.XmlDeclHandler = declaration
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = doctype
    parser.StartElementHandler = elements.start
    parser.EndElementHandler = elements.end
    parser.CharacterDataHandler = elements.characters
    return parser
