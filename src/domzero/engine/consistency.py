"""Looks for stored objects that contradict each other, and resolves each contradiction.

A database written by this program alone has none. They come from bugs, from hands in the file and from disks that lie;
starting with a repaired database and a report beats not starting. As nearly every start finds nothing, each check looks
at all objects of a class at once, and at single ones only where something is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

from domzero.engine.row import Row
from domzero.engine.tables import Tables
from domzero.idl.records import Layout
from domzero.idl.types import NULL_REF, MapOf, Ref, RefTo, SetOf, Type

Found: TypeAlias = Mapping[str, dict[Ref, Row]]
"""For every class the objects read from disk, oldest first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was wrong with a stored object; `text` tells what, and what was done, in a sentence or two."""

    class_name: str
    ref: Ref
    text: str


@dataclass(slots=True)
class Repairs:
    """What was found, and which rows are no longer what is on disk."""

    findings: list[Finding] = field(default_factory=list)
    changed: dict[Row, None] = field(default_factory=dict)
    dropped: dict[Row, None] = field(default_factory=dict)

    def report(self, row: Row, text: str) -> None:
        """Note what was wrong with an object that stays as it is on disk, or goes."""
        self.findings.append(Finding(row.class_name, row.ref, text))

    def change(self, row: Row, name: str, value: Any, text: str) -> None:
        """Give one field another value."""
        row.record = row.record.changed({name: value})
        self.changed[row] = None
        self.report(row, text)

    def drop(self, row: Row, text: str) -> None:
        """Note that the object is no more."""
        self.dropped[row] = None
        self.changed.pop(row, None)
        self.report(row, text)


def make_uuids_unique(found: Found, new_uuid: Callable[[], str], repairs: Repairs) -> None:
    """Leave no uuid twice within a class: an object whose uuid is empty or an older one's gets a new one."""
    for rows in found.values():
        at = next((row.record.layout.position.get("uuid") for row in rows.values()), None)
        if at is None:
            continue
        uuids = {row.record.values_[at] for row in rows.values()}
        if len(uuids) == len(rows) and "" not in uuids:
            continue
        taken = {""}
        for row in rows.values():
            uuid = row.record.values_[at]
            if uuid in taken:
                repairs.change(row, "uuid", new_uuid(), f"The uuid {uuid!r} is not unique. It gets another.")
            taken.add(uuid)


def resolve_references(tables: Tables, found: Found, owners: Collection[str], repairs: Repairs) -> None:
    """Leave no reference to an object that is not there. Objects whose `owners` field ("VBD.VM") names a lost object
    go; other references become null or leave their set or map."""
    _drop_ownerless(tables, found, owners, repairs)
    for name, rows in found.items():
        layout = tables.by_class[name].layout
        values = [row.record.values_ for row in rows.values()]
        for at, type_ in _references(layout):
            if any(_lost(refs, found[cls]) for cls, refs in _named(type_, map(itemgetter(at), values))):
                _clear(rows.values(), layout.names[at], type_, found, repairs)


def _drop_ownerless(tables: Tables, found: Found, owners: Collection[str], repairs: Repairs) -> None:
    plan = [
        (name, at, type_.cls)
        for name in found
        for at, type_ in _references(tables.by_class[name].layout)
        if isinstance(type_, RefTo) and f"{name}.{tables.by_class[name].layout.names[at]}" in owners
    ]
    gone = True
    while gone:  # a row that goes may itself be what others belong to
        gone = False
        for name, at, cls in plan:
            lost = _lost({row.record.values_[at] for row in found[name].values()}, found[cls])
            for row in [row for row in found[name].values() if row.record.values_[at] in lost] if lost else ():
                field_name, owner = row.record.layout.names[at], row.record.values_[at]
                repairs.drop(row, f"{field_name}: {owner} is gone, and the object goes with it.")
                del found[name][row.ref]
                gone = True


def _clear(rows: Iterable[Row], name: str, type_: Type, found: Found, repairs: Repairs) -> None:
    for row in rows:
        value = row.record[name]
        cleared = _without_dangling(type_, value, found)
        if cleared is not value:
            text = f"{name}: {value!r} refers to an object that is gone. It becomes {cleared!r}."
            repairs.change(row, name, cleared, text)


def _references(layout: Layout) -> list[tuple[int, Type]]:
    return [
        (at, field.type)
        for at, field in enumerate(layout.fields)
        if field.inverse is None and any(isinstance(part, RefTo) for part in _direct_parts(field.type))
    ]


def _direct_parts(type_: Type) -> tuple[Type, ...]:
    match type_:
        case SetOf(item):
            return (item,)
        case MapOf(key, value):
            return (key, value)
    return (type_,)


def _named(type_: Type, values: Iterable[Any]) -> Iterator[tuple[str, set[Ref]]]:
    """The references in the values of a field, by the class that they are to."""
    match type_:
        case RefTo(cls):
            yield cls, set(values)
        case SetOf(RefTo(cls)):
            yield cls, set(chain.from_iterable(values))
        case MapOf(key, item):
            entries = [entry for value in values for entry in value.items()]
            for part, place in ((key, 0), (item, 1)):
                if isinstance(part, RefTo):
                    yield part.cls, {entry[place] for entry in entries}


def _lost(refs: set[Ref], rows: Collection[Ref]) -> set[Ref]:
    return refs.difference(rows, (NULL_REF,))


def _without_dangling(type_: Type, value: Any, found: Found) -> Any:
    """The value without references to what is gone; the very same object when there are none."""

    def stands(part: Type, item: Any) -> bool:
        return not isinstance(part, RefTo) or item == NULL_REF or item in found[part.cls]

    match type_:
        case SetOf(item_type):
            kept = tuple(item for item in value if stands(item_type, item))
            return value if len(kept) == len(value) else kept
        case MapOf(key, item_type):
            left = {k: item for k, item in value.items() if stands(key, k) and stands(item_type, item)}
            return value if len(left) == len(value) else left
    return value if stands(type_, value) else NULL_REF
