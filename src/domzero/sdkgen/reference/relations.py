"""Which classes refer to which, read off the fields' types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from domzero.idl.graph import Graph
from domzero.idl.types import RefTo, parts


@dataclass(frozen=True, slots=True)
class Relation:
    """A field whose value holds references to objects of a class."""

    source: str
    field: str
    target: str


def relations(graph: Graph) -> Iterator[Relation]:
    """Every relation once: a set that the database derives from another class's field is left out."""
    for cls in graph.classes.values():
        for field in cls.fields:
            if field.inverse is not None:
                continue
            targets = dict.fromkeys(part.cls for part in parts(field.type) if isinstance(part, RefTo))
            for target in targets:
                yield Relation(cls.name, field.name, target)
