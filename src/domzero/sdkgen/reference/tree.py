"""Building pages as trees: whatever is put in as text comes out escaped, as there is no other way to put it in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias
from xml.etree import ElementTree as ET

Node: TypeAlias = ET.Element
Child: TypeAlias = Node | str | None

DOCTYPE = "<!DOCTYPE html>\n"

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]")
"""What neither HTML nor XML may contain, not even escaped."""


def node(tag: str, *children: Child, **attributes: str | None) -> Node:
    """An element. `None` among the children or attributes stands for nothing.

    An underscore at the end of an attribute's name is dropped (`class_`), others become hyphens (`aria_label`).
    """
    made = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.removesuffix("_").replace("_", "-"), printable(value))
    return append(made, *children)


def append(parent: Node, *children: Child) -> Node:
    """Add children behind those that are there. Returns the parent."""
    for child in children:
        if isinstance(child, str):
            _append_text(parent, printable(child))
        elif child is not None:
            parent.append(child)
    return parent


def joined(separator: str, children: Iterable[Child]) -> list[Child]:
    """The children with a text between each two."""
    found: list[Child] = []
    for child in children:
        found.extend([separator, child] if found else [child])
    return found


def printable(text: str) -> str:
    """The text with U+FFFD in the place of characters that no document may contain."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def as_html(root: Node) -> bytes:
    """A whole page. Raises `ValueError` for inline scripts and styles, which HTML does not unescape."""
    for raw in ("script", "style"):
        if any(element.text for element in root.iter(raw)):
            raise ValueError(f"a {raw} element has text; put it into a file of its own")
    return (DOCTYPE + ET.tostring(root, encoding="unicode", method="html") + "\n").encode()


def _append_text(parent: Node, text: str) -> None:
    last = parent[-1] if len(parent) else None
    if last is None:
        parent.text = (parent.text or "") + text
    else:
        last.tail = (last.tail or "") + text
