"""Looks for stored objects that contradict each other, and resolves each contradiction.

A database written by this program alone has none. They come from bugs, from hands in the file and from disks that lie;
starting with a repaired database and a report beats not starting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from domzero.engine.tables import Draft, Tables
from domzero.idl.records import Layout
from domzero.idl.types import NULL_REF, MapOf, Ref, RefTo, SetOf, Type

Present: TypeAlias = Mapping[str, set[Ref]]
"""Class → references of the objects that are there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was wrong with a stored object; `text` tells what, and what was done, in a sentence or two."""

    class_name: str
    ref: Ref
    text: str


def make_unique(drafts: Sequence[Draft], new_uuid: Callable[[], str]) -> tuple[list[Draft], list[Finding]]:
    """Leave no reference and no uuid twice within a class: of rows with one reference the oldest stays, and a row whose
    uuid is empty or taken gets a new one."""
    kept: dict[tuple[str, Ref], Draft] = {}
    uuids: set[tuple[str, str]] = set()
    findings: list[Finding] = []
    for draft in drafts:
        name, at = draft.table.layout.name, draft.table.uuid_at
        if (name, draft.ref) in kept:
            findings.append(Finding(name, draft.ref, "The reference is stored twice. The younger object is dropped."))
            continue
        kept[name, draft.ref] = draft
        if at is None:
            continue
        if not draft.values[at] or (name, draft.values[at]) in uuids:
            findings.append(Finding(name, draft.ref, f"The uuid {draft.values[at]!r} is not unique. It gets another."))
            draft.values[at] = new_uuid()
            draft.repaired = True
        uuids.add((name, draft.values[at]))
    return list(kept.values()), findings


def resolve_references(
    tables: Tables, drafts: Sequence[Draft], owners: Collection[str]
) -> tuple[list[Draft], list[Finding]]:
    """Leave no reference to an object that is not there. Rows whose `owners` field ("VBD.VM") names a lost object go;
    other references become null or leave their set or map."""
    present: dict[str, set[Ref]] = {name: set() for name in tables.by_class}
    for draft in drafts:
        present[draft.table.layout.name].add(draft.ref)
    left, findings = _drop_ownerless(tables, list(drafts), owners, present)
    plans = {name: _references(table.layout) for name, table in tables.by_class.items()}
    for draft in left:
        layout = draft.table.layout
        for at, type_ in plans[layout.name]:
            value = draft.values[at]
            cleared = _without_dangling(type_, value, present)
            if cleared is not value:
                draft.values[at] = cleared
                draft.repaired = True
                text = f"{layout.names[at]}: {value!r} refers to an object that is gone. It becomes {cleared!r}."
                findings.append(Finding(layout.name, draft.ref, text))
    return left, findings


def _drop_ownerless(
    tables: Tables, drafts: list[Draft], owners: Collection[str], present: dict[str, set[Ref]]
) -> tuple[list[Draft], list[Finding]]:
    plans = {
        name: [
            (at, type_.cls)
            for at, type_ in _references(table.layout)
            if isinstance(type_, RefTo) and f"{name}.{table.layout.names[at]}" in owners
        ]
        for name, table in tables.by_class.items()
    }
    findings: list[Finding] = []
    while True:  # a row that goes may itself be what others belong to
        left = []
        for draft in drafts:
            layout = draft.table.layout
            lost = [at for at, cls in plans[layout.name] if not _stands(draft.values[at], cls, present)]
            if lost:
                text = f"{layout.names[lost[0]]}: {draft.values[lost[0]]} is gone, and the object goes with it."
                findings.append(Finding(layout.name, draft.ref, text))
                present[layout.name].discard(draft.ref)
            else:
                left.append(draft)
        if len(left) == len(drafts):
            return left, findings
        drafts = left


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


def _stands(ref: Ref, cls: str, present: Present) -> bool:
    return ref == NULL_REF or ref in present[cls]


def _without_dangling(type_: Type, value: Any, present: Present) -> Any:
    """The value without references to what is gone; the very same object when there are none."""

    def stands(part: Type, item: Any) -> bool:
        return not isinstance(part, RefTo) or _stands(item, part.cls, present)

    match type_:
        case SetOf(item_type):
            kept = tuple(item for item in value if stands(item_type, item))
            return value if len(kept) == len(value) else kept
        case MapOf(key, item_type):
            left = {k: item for k, item in value.items() if stands(key, k) and stands(item_type, item)}
            return value if len(left) == len(value) else left
    return value if stands(type_, value) else NULL_REF
