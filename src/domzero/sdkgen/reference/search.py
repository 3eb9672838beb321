"""The index that the search runs on, in the reader's browser."""

from __future__ import annotations

import json
from collections.abc import Iterator

from domzero.idl.graph import Graph
from domzero.sdkgen.reference import links

TEXT_LENGTH = 90
"""How much of a description is shown, and searched, beside a name."""

Entry = tuple[str, str, str, str]
"""Kind, name, address, text."""


def search_index(graph: Graph) -> bytes:
    """A script that holds the index as one constant.

    A script and no JSON file, since browsers let a page that was opened from a disk load the one and not the other.
    """
    entries = json.dumps(list(entries_of(graph)), separators=(",", ":"))
    return f"window.referenceIndex={entries};\n".encode("ascii")


def entries_of(graph: Graph) -> Iterator[Entry]:
    """Everything that has a name; implicit messages without their texts, which are all alike."""
    for cls in graph.classes.values():
        yield "class", cls.name, links.class_page(cls.name), _short(cls.doc)
        for field in cls.fields:
            yield "field", f"{cls.name}.{field.name}", links.field_at(cls.name, field.name), _short(field.doc)
    for method in graph.methods.values():
        text = _short(method.message.doc) if method.message.implicit is None else ""
        yield "message", method.name, links.message_at(method.cls.name, method.message.name), text
    for enum in graph.enums.values():
        yield "enum", enum.name, links.enum_at(enum.name), _short(" ".join(enum.values))
    for error in graph.errors.values():
        yield "error", error.code, links.error_at(error.code), _short(error.doc)
    for role in graph.roles.values():
        yield "role", role.name, links.role_at(role.name), _short(role.doc)


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1].rstrip() + "…"
