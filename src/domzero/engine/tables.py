"""The objects of each class with their indexes, and the sets that are derived from references.

Nothing here knows of transactions, events or disks. `Tables` keeps these promises after every single operation:

* a class's `uuids` and `labels` hold exactly its rows;
* a derived set such as VM.VBDs holds exactly the rows whose field (VBD.VM) refers to it, in the order of their
  creation, also when the referring rows came first or the referred one was away in between.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from domzero.engine.row import Row
from domzero.engine.values import Prepare, preparer
from domzero.idl.graph import Graph
from domzero.idl.model import Class, Durability
from domzero.idl.records import Layout, Record
from domzero.idl.types import NULL_REF, Ref, SetOf, Type


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A reference field and the set derived from it: `source` class and position, `target` class and position."""

    source: str
    position: int
    many: bool
    target: str
    target_position: int

    def targets(self, record: Record) -> tuple[Ref, ...]:
        """What the source's record refers to; no null, nothing twice."""
        value = record.values_[self.position]
        if self.many:
            return tuple(dict.fromkeys(ref for ref in value if ref != NULL_REF))
        return () if value == NULL_REF else (value,)


@dataclass(slots=True)
class Table:
    """All objects of one class."""

    layout: Layout
    lower: str
    """The class's name in events."""
    emits_events: bool
    prepare: tuple[Prepare, ...]
    derived: frozenset[int]
    """Positions of the sets that nobody writes."""
    volatile: frozenset[int]
    """Positions of measurements."""
    uuid_at: int | None
    """Position of the uuid, in classes that have one."""
    label_at: int | None
    """Position of the name, in classes that have one."""
    rows: dict[Ref, Row] = field(default_factory=dict)
    uuids: dict[str, Row] = field(default_factory=dict)
    labels: dict[str, dict[Ref, None]] = field(default_factory=dict)
    """Ten thousand objects may have the same name, the empty one above all: adding and removing one costs the same."""

    def insert(self, row: Row) -> None:
        """Add a row whose ref and uuid are free."""
        self.rows[row.ref] = row
        self._index(row, None, row.record)

    def remove(self, row: Row) -> None:
        """Take a row out."""
        del self.rows[row.ref]
        self._index(row, row.record, None)

    def replace(self, row: Row, record: Record) -> None:
        """Give a row its next version."""
        old, row.record = row.record, record
        self._index(row, old, record)

    def index_all(self) -> None:
        """Make the indexes of rows that came without them."""
        if self.uuid_at is not None:
            self.uuids = {row.record.values_[self.uuid_at]: row for row in self.rows.values()}
        if self.label_at is not None:
            for ref, row in self.rows.items():
                self.labels.setdefault(row.record.values_[self.label_at], {})[ref] = None

    def _index(self, row: Row, old: Record | None, new: Record | None) -> None:
        before, after = _value(old, self.uuid_at), _value(new, self.uuid_at)
        if before != after:
            if before:
                del self.uuids[before]
            if after:
                self.uuids[after] = row
        before, after = _value(old, self.label_at), _value(new, self.label_at)
        if before != after:
            if before is not None:
                self._forget_label(before, row.ref)
            if after is not None:
                self.labels.setdefault(after, {})[row.ref] = None

    def _forget_label(self, label: str, ref: Ref) -> None:
        named = self.labels[label]
        del named[ref]
        if not named:
            del self.labels[label]


def _value(record: Record | None, position: int | None) -> str | None:
    return None if record is None or position is None else record.values_[position]


class Tables:
    """Every table, and the links between them. Classes of which nothing is stored have no table."""

    def __init__(self, graph: Graph) -> None:
        # There are ten times as many fields as types.
        checks = cache(lambda type_: preparer(graph, type_, self._canonical_ref))
        self.by_class: dict[str, Table] = {
            cls.name: self._table(cls, checks) for cls in graph.classes.values() if cls.durability is Durability.DURABLE
        }
        links = [
            self._link(cls, position, graph)
            for cls in graph.classes.values()
            for position, field_ in enumerate(cls.fields)
            if field_.inverse is not None
        ]
        self.links_from: dict[str, tuple[Link, ...]] = {
            name: tuple(link for link in links if link.source == name) for name in self.by_class
        }
        self.links_to: dict[str, tuple[Link, ...]] = {
            name: tuple(link for link in links if link.target == name) for name in self.by_class
        }
        self.orphans: dict[tuple[Link, Ref], tuple[Ref, ...]] = {}
        """Sources, oldest first, that refer to an object which is not there."""

    def members(self, link: Link, target: Ref) -> tuple[Ref, ...]:
        """The derived set of a target, present or not."""
        row = self.by_class[link.target].rows.get(target)
        return self.orphans.get((link, target), ()) if row is None else row.record.values_[link.target_position]

    def with_source(self, link: Link, members: tuple[Ref, ...], source: Row) -> tuple[Ref, ...]:
        """The set with a source more, at the place that its creation gives it."""
        rows = self.by_class[link.source].rows
        if not members or rows[members[-1]].created < source.created:
            return (*members, source.ref)
        place = self._place(link, members, source)
        return (*members[:place], source.ref, *members[place:])

    def without_source(self, link: Link, members: tuple[Ref, ...], source: Row) -> tuple[Ref, ...]:
        """The set with a source less."""
        place = self._place(link, members, source)
        return (*members[:place], *members[place + 1 :])

    def _place(self, link: Link, members: tuple[Ref, ...], source: Row) -> int:
        rows = self.by_class[link.source].rows
        return bisect_left(members, source.created, key=lambda ref: rows[ref].created)

    def load(self, found: Mapping[str, Mapping[Ref, Row]]) -> None:
        """Fill empty tables with objects given by class, oldest first, and derive the derived sets.

        References and uuids are unique within a class.
        """
        for name, rows in found.items():
            table = self.by_class[name]
            table.rows.update(rows)
            table.index_all()
        for name, links in self.links_to.items():
            sets = {link: members for link in links if (members := self._derived(link))}
            if sets:
                self._set_derived(self.by_class[name], sets)

    def _derived(self, link: Link) -> dict[Ref, list[Ref]]:
        sets: dict[Ref, list[Ref]] = {}
        for ref, row in self.by_class[link.source].rows.items():
            value = row.record.values_[link.position]
            for target in dict.fromkeys(value) if link.many else (value,):
                if target != NULL_REF:
                    sets.setdefault(target, []).append(ref)
        return sets

    def _set_derived(self, table: Table, sets: Mapping[Link, dict[Ref, list[Ref]]]) -> None:
        for ref, row in table.rows.items():
            members = {link.target_position: of_link.pop(ref) for link, of_link in sets.items() if ref in of_link}
            if members:
                values = list(row.record.values_)
                for position, refs in members.items():
                    values[position] = tuple(refs)
                row.record = Record(table.layout, tuple(values))
        self.orphans.update(
            ((link, ref), tuple(refs)) for link, of_link in sets.items() for ref, refs in of_link.items()
        )

    def _table(self, cls: Class, checks: Callable[[Type], Prepare]) -> Table:
        positions = range(len(cls.fields))
        layout = Layout(cls)
        return Table(
            layout=layout,
            lower=cls.name.lower(),
            emits_events=cls.emits_events,
            prepare=tuple(_named(cls, f.name, checks(f.type)) for f in cls.fields),
            derived=frozenset(i for i in positions if cls.fields[i].inverse is not None),
            volatile=frozenset(i for i in positions if cls.fields[i].volatile),
            uuid_at=layout.position.get("uuid"),
            label_at=layout.position.get("name_label"),
        )

    def _link(self, cls: Class, position: int, graph: Graph) -> Link:
        inverse = cls.fields[position].inverse
        assert inverse is not None
        source, _, name = inverse.partition(".")
        source_position = self.by_class[source].layout.position[name]
        many = isinstance(graph.fields[source][name].type, SetOf)
        if source_position in self.by_class[source].derived:
            raise ValueError(f"{cls.name}.{cls.fields[position].name} is derived from {inverse}, itself derived")
        return Link(source, source_position, many, cls.name, position)

    def _canonical_ref(self, cls: str, ref: str) -> str:
        row = self.by_class[cls].rows.get(ref)
        return ref if row is None else row.ref


def _named(cls: Class, name: str, prepare: Callable[[Any], Any]) -> Prepare:
    def named(value: Any) -> Any:
        try:
            return prepare(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{cls.name}.{name}: {error}") from error

    return named
