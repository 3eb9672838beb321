"""Columns: the fields that a record has on the command line, each with the way from the object to its value.

A column is written as one word: `name` alone stands for the field of that name (`name-label` for `name_label`),
`name=field.field` for a way along references, `name=!Class.message` for what a call tells (it is made only when the
column is asked for by name), `name=?Class.message` for whether a call that tells nothing would be carried out, and
`name=@maker` for what a function of `MAKERS` makes. A name that begins with `~` cannot be written, whatever the API
allows; one that begins with `.` neither, and its label does not tell a set or a map, as XenServer's does not. Whether
others can be written follows from the messages that the graph has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from domzero.engine.errors import ApiError
from domzero.idl.graph import Graph
from domzero.idl.types import BOOL, NULL_REF, STRING, MapOf, RefTo, SetOf, Type
from domzero.xe.api import Api
from domzero.xe.values import DANGLING, EXPENSIVE, NULL, shown, shown_map, shown_set
from domzero.xe.view import Object, View

Value: TypeAlias = str | tuple[str, ...] | dict[str, str]
Maker: TypeAlias = Callable[[View, Object], str]


def sr_host(view: View, record: Object) -> str:
    """The host of a repository that has one."""
    pbds = record["PBDs"]
    if len(pbds) > 1:
        return "<shared>"
    pbd = view.table("PBD").get(pbds[0]) if pbds else None
    host = None if pbd is None else view.table("host").get(pbd["host"])
    return NULL if host is None else str(host["name_label"])


MAKERS: Mapping[str, tuple[Maker, tuple[str, ...]]] = {"sr_host": (sr_host, ("PBD", "host"))}
"""Functions, and the classes they look at."""


@dataclass(frozen=True, slots=True)
class Column:
    """One field. `type` is that of the value at the end of the way; `needs` the classes to load before `value`.

    `call` is the message that tells it, and `of_object` whether it takes the object's reference; where `asserts`,
    it tells by failing. The label of a `plain` column has no letter for sets and maps.
    """

    name: str
    path: tuple[str, ...]
    type: Type
    writable: bool
    needs: tuple[str, ...] = ()
    call: str = ""
    of_object: bool = True
    asserts: bool = False
    plain: bool = False
    make: Maker | None = None
    steps: Mapping[str, Type] = field(default_factory=dict)

    @property
    def is_set(self) -> bool:
        """Whether the value has members. Operations under way count as one: their tasks are not shown."""
        return isinstance(self.type, SetOf) or self.name == "current-operations"

    @property
    def is_map(self) -> bool:
        """Whether the value has keys."""
        return isinstance(self.type, MapOf) and not self.is_set

    @property
    def label(self) -> str:
        """The name with what may be done to it."""
        shape = " " if self.plain else "S" if self.is_set else "M" if self.is_map else " "
        return f"{self.name} ({shape}{'RW' if self.writable else 'RO'})"

    def value(self, view: View, record: Object) -> Value:
        """The value, of what has been loaded. A column that needs a call says so."""
        if self.call:
            return EXPENSIVE
        if self.make is not None:
            return self.make(view, record)
        return _follow(view, record[self.path[0]], self.path[1:], self.steps[self.path[0]], self.steps)

    async def asked(self, api: Api, view: View, ref: str, record: Object) -> Value:
        """The value, a call made where one is needed. Raises `ApiError`."""
        if not self.call:
            return self.value(view, record)
        if self.asserts:
            return await _carried_out(api, self.call, ref)
        told = await api.call(self.call, *([ref] if self.of_object else []))
        return _follow(view, told, (), self.type, self.steps)

    def text(self, value: Value) -> str:
        """The value on one line."""
        if isinstance(value, dict):
            return shown_map(value)
        return shown_set(value) if isinstance(value, tuple) else value


async def _carried_out(api: Api, call: str, ref: str) -> str:
    """Whether a call about an object would succeed, and what stands against it."""
    try:
        await api.call(call, ref)
    except ApiError as error:
        return f"false (error: {', '.join((error.code, *error.params))})"
    return "true"


def _follow(view: View, value: Any, path: tuple[str, ...], type_: Type, steps: Mapping[str, Type]) -> Value:
    match type_:
        case RefTo(cls):
            if value == NULL_REF:
                return NULL
            record = view.table(cls).get(value)
            if record is None:
                return DANGLING
            name = path[0] if path else "uuid"
            return _follow(view, record[name], path[1:], steps[f"{cls}.{name}"], steps)
        case SetOf(item):
            members: list[str] = []
            for one in value:
                found = _follow(view, one, path, item, steps)
                members += found if isinstance(found, tuple) else [str(found)]
            return tuple(members)
        case MapOf(_, item) if path == ("values",):
            return tuple(shown(entry, item) for entry in value.values())
        case MapOf(key, item):
            return {
                str(_follow(view, name, (), key, steps)): _entry(_follow(view, entry, (), item, steps))
                for name, entry in value.items()
            }
    return shown(value, type_)


def _entry(value: Value) -> str:
    return "; ".join(value) if isinstance(value, tuple) else str(value)


def columns(graph: Graph, cls: str, text: str) -> tuple[Column, ...]:
    """The columns of a class, written as words. Raises `KeyError` for one that leads nowhere."""
    return tuple(_column(graph, cls, word) for word in text.split())


def _column(graph: Graph, cls: str, word: str) -> Column:
    name, _, way = word.partition("=")
    plain, read_only, name = name.startswith("."), name.startswith((".", "~")), name.lstrip(".~")
    way = way or name.replace("-", "_")
    if way.startswith("?"):
        return Column(name, (), BOOL, False, call=graph.methods[way[1:]].name, asserts=True)
    if way.startswith("!"):
        message = graph.methods[way[1:]].message
        needs = tuple(_classes(message.result))
        steps, of_object = _uuid_steps(needs), bool(message.params)
        return Column(name, (), message.result, False, needs, way[1:], of_object, plain=plain, steps=steps)
    if way.startswith("@"):
        make, needs = MAKERS[way[1:]]
        return Column(name, (), STRING, False, needs, make=make)
    path = tuple(way.split("."))
    steps, end, needed = _walk(graph, cls, path)
    writable = not read_only and len(path) == 1 and f"{cls}.set_{path[0]}" in graph.methods
    if name == "current-operations":
        path = (*path, "values")
    return Column(name, path, end, writable, needed, plain=plain, steps=steps)


def _walk(graph: Graph, cls: str, path: tuple[str, ...]) -> tuple[dict[str, Type], Type, tuple[str, ...]]:
    steps: dict[str, Type] = {path[0]: graph.fields[cls][path[0]].type}
    needed: list[str] = []
    current, several = steps[path[0]], False
    for name in path[1:]:
        several = several or isinstance(current, SetOf)
        inner = current.item if isinstance(current, SetOf) else current
        assert isinstance(inner, RefTo), f"{cls}.{'.'.join(path)} does not follow references"
        needed.append(inner.cls)
        current = steps[f"{inner.cls}.{name}"] = graph.fields[inner.cls][name].type
    needed += _classes(current)
    steps |= _uuid_steps(needed)
    end = SetOf(current) if several and not isinstance(current, SetOf) else current
    return steps, end, tuple(dict.fromkeys(needed))


def _uuid_steps(classes: Iterable[str]) -> dict[str, Type]:
    return {f"{cls}.uuid": STRING for cls in classes}


def _classes(type_: Type) -> list[str]:
    """The classes whose objects a value refers to."""
    match type_:
        case RefTo(cls):
            return [cls]
        case SetOf(item):
            return _classes(item)
        case MapOf(key, item):
            return [*_classes(key), *_classes(item)]
    return []
