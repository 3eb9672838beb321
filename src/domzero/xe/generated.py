"""The seven commands that every record class has: `<class>-list`, `<class>-param-{list,get,set,add,remove,clear}`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from domzero.idl.graph import Graph
from domzero.idl.types import NULL_REF, STRING, MapOf, RefTo, SetOf, Type
from domzero.xe.columns import Column
from domzero.xe.command import Command
from domzero.xe.errors import CommandError, UsageError, unknown_field
from domzero.xe.filtering import Filter, filters, keyed, matching
from domzero.xe.line import GLOBAL
from domzero.xe.records import RecordClass
from domzero.xe.talk import Talk
from domzero.xe.values import NULL, read
from domzero.xe.view import Object

COMMON = frozenset({"vm", "template", "snapshot", "host", "sr", "vdi", "network"})
_ACTIONS: tuple[tuple[str, Callable[[RecordClass, Talk], Awaitable[None]], str, str, str], ...]


def generated(graph: Graph, kinds: Mapping[str, RecordClass]) -> Iterator[Command]:
    """The commands of all record classes."""
    for kind in kinds.values():
        for suffix, run, required, optional, doc in _ACTIONS:
            if suffix in ("param-set", "param-add", "param-remove", "param-clear") and not _has(kind, suffix):
                continue
            yield Command(
                f"{kind.name}-{suffix}",
                doc.format(kind.several, kind.name),
                partial(run, kind),
                tuple(required.split()),
                tuple(optional.split()),
                needs=(f"{kind.cls}.get_all_records",),
                common=suffix == "list" and kind.name in COMMON,
            )
    del graph


def _has(kind: RecordClass, suffix: str) -> bool:
    containers = [column for column in kind.columns if column.writable and (column.is_map or column.is_set)]
    return bool(containers if suffix in ("param-add", "param-remove") else [c for c in kind.columns if c.writable])


async def list_(kind: RecordClass, talk: Talk) -> None:
    """Print the records that satisfy all filters."""
    await show(talk, kind, await matching(talk, kind, filters(kind, talk.line.params, ())), talk.line.get("params"))


async def show(
    talk: Talk, kind: RecordClass, found: Sequence[tuple[str, Object]], params: str | None,
    default: Sequence[str] = (),
) -> None:  # fmt: skip
    """Print records: some columns (`params`, separated by commas, or `all`), always in the record class's order."""
    chosen, named = choose(kind, params, default)
    await talk.view.load(needed for column in chosen for needed in column.needs)
    for ref, record in found:
        await talk.record(
            [
                (
                    column.label,
                    _text(
                        talk,
                        column,
                        await column.asked(talk.api, talk.view, ref, record)
                        if named
                        else column.value(talk.view, record),
                    ),
                )
                for column in chosen
            ]
        )
    if not found:
        await talk.empty()


def choose(kind: RecordClass, params: str | None, default: Sequence[str] = ()) -> tuple[list[Column], bool]:
    """The columns to show, and whether they were asked for by name. Raises `CommandError`."""
    if params == "all":
        return list(kind.columns), False
    if params is None:
        wanted = set(default or kind.default)
    else:
        wanted = {kind.column(name.strip()).name for name in params.split(",") if name.strip()}
    return [column for column in kind.columns if column.name in wanted], params is not None


def _text(talk: Talk, column: Column, value: Any) -> str:
    return ",".join(value) if talk.minimal and isinstance(value, tuple) else column.text(value)


async def _object(kind: RecordClass, talk: Talk) -> tuple[str, Object]:
    """The object of `uuid=`; one of the class that is of another kind (a template asked for as a VM) will do."""
    ref = await talk.by_uuid(kind.cls, talk.line.need("uuid"))
    await talk.view.load((kind.cls,))
    return ref, talk.view.table(kind.cls)[ref]


async def param_list(kind: RecordClass, talk: Talk) -> None:
    """Print every field of an object."""
    await show(talk, kind, [await _object(kind, talk)], "all")


async def param_get(kind: RecordClass, talk: Talk) -> None:
    """Print one field, or one entry of a map."""
    column, key = _named(kind, talk)
    ref, record = await _object(kind, talk)
    await talk.view.load(column.needs)
    value = await column.asked(talk.api, talk.view, ref, record)
    if key is None:
        await (talk.values(value) if talk.minimal and isinstance(value, tuple) else talk.value(column.text(value)))
    elif isinstance(value, dict):
        if key not in value:
            raise CommandError(f"Key {key} not found in map")
        await talk.value(value[key])
    else:
        raise CommandError(f"Field '{column.name}' is not a map")


def _named(kind: RecordClass, talk: Talk) -> tuple[Column, str | None]:
    """The column and key of `param-name` and `param-key`."""
    name, key = talk.line.need("param-name"), talk.line.get("param-key")
    if name not in kind.by_name and key is None and ":" in name:
        name, _, key = name.partition(":")
    return kind.column(name), key


def _writable(column: Column) -> Column:
    if not column.writable:
        raise CommandError(f"Field '{column.name}' is read-only.")
    return column


async def param_set(kind: RecordClass, talk: Talk) -> None:
    """Set fields, or entries of maps."""
    changes = [_change(kind, name, value) for name, value in talk.line.params if name != "uuid" and name not in GLOBAL]
    ref, _ = await _object(kind, talk)
    for column, key, text in changes:
        if key is not None:
            await _put_entry(kind, talk, column, ref, key, text)
        else:
            await _set(kind, talk, column, ref, await _api_value(talk, column, text))


def _change(kind: RecordClass, name: str, value: str) -> tuple[Column, str | None, str]:
    head, colon, key = name.partition(":")
    if name not in kind.by_name and not colon:
        pairs = [(column, inner) for column, inner in keyed(kind, name) if inner]
        if not pairs:
            raise unknown_field(name)
        return _writable(pairs[0][0]), pairs[0][1], value
    column = _writable(kind.column(head))
    if column.is_set:
        raise CommandError(f"Field '{column.name}' is a set. Use {kind.name}-param-add and {kind.name}-param-remove.")
    if column.is_map and not key:
        raise CommandError(f"Field '{column.name}' is a map. Set an entry as {column.name}:key=value.")
    if colon and not column.is_map:
        raise CommandError(f"Field '{column.name}' is not a map.")
    return column, key if colon else None, value


async def _api_value(talk: Talk, column: Column, text: str) -> Any:
    if isinstance(column.type, RefTo):
        return await talk.by_uuid(column.type.cls, text) if text and text != NULL else NULL_REF
    return read(column.name, text, column.type, talk.graph)


async def _set(kind: RecordClass, talk: Talk, column: Column, ref: str, value: Any) -> None:
    await talk.api.call(f"{kind.cls}.set_{column.path[0]}", ref, value)


async def _put_entry(kind: RecordClass, talk: Talk, column: Column, ref: str, key: str, text: str) -> None:
    """Set an entry, whether there is one of that key or not."""
    assert isinstance(column.type, MapOf)
    value: Any = read(key, text, _scalar(column.type.value), talk.graph)
    name = column.path[0]
    if f"{kind.cls}.add_to_{name}" in talk.graph.methods:
        await talk.api.call(f"{kind.cls}.remove_from_{name}", ref, key)
        await talk.api.call(f"{kind.cls}.add_to_{name}", ref, key, value)
        return
    entries = await talk.api.call(f"{kind.cls}.get_{name}", ref)
    await _set(kind, talk, column, ref, {**entries, key: value})


def _scalar(type_: Type) -> Type:
    return STRING if isinstance(type_, RefTo) else type_


async def param_add(kind: RecordClass, talk: Talk) -> None:
    """Add members to a set, or entries to a map."""
    column = _writable(kind.column(talk.line.need("param-name")))
    own = ("uuid", "param-name", "param-key")
    extra = [(name, value) for name, value in talk.line.params if name not in own and name not in GLOBAL]
    key = talk.line.get("param-key")
    if column.is_set:
        if not key:
            raise UsageError("Required parameter not found: param-key")
        ref, record = await _object(kind, talk)
        if key not in await _members(talk, column, ref, record):
            await _change_set(kind, talk, column, ref, key, add=True)
        return
    if not column.is_map:
        raise CommandError(f"Field '{column.name}' is neither a set nor a map. Use {kind.name}-param-set.")
    if key is not None:
        name, equals, value = key.partition("=")
        if not equals:
            raise CommandError(f"An entry for the map '{column.name}' is written key=value")
        extra.append((name, value))
    if not extra:
        raise UsageError("Required parameter not found: param-key")
    ref, _ = await _object(kind, talk)
    for name, value in extra:
        await _put_entry(kind, talk, column, ref, name, value)


async def _members(talk: Talk, column: Column, ref: str, record: Object) -> tuple[str, ...]:
    await talk.view.load(column.needs)
    value = await column.asked(talk.api, talk.view, ref, record)
    assert isinstance(value, tuple)
    return value


async def _change_set(kind: RecordClass, talk: Talk, column: Column, ref: str, member: str, *, add: bool) -> None:
    """Add or remove a member, by the message for it or by setting the whole."""
    assert isinstance(column.type, SetOf)
    value = await _api_member(talk, column, column.type.item, member)
    name, verb = column.path[0], "add" if add else "remove"
    if f"{kind.cls}.{verb}_{name}" in talk.graph.methods:
        await talk.api.call(f"{kind.cls}.{verb}_{name}", ref, value)
        return
    others = [one for one in await talk.api.call(f"{kind.cls}.get_{name}", ref) if one != value]
    await _set(kind, talk, column, ref, [*others, value] if add else others)


async def _api_member(talk: Talk, column: Column, type_: Type, text: str) -> Any:
    if isinstance(type_, RefTo):
        return await talk.by_uuid(type_.cls, text)
    return read(column.name, text, type_, talk.graph)


async def param_remove(kind: RecordClass, talk: Talk) -> None:
    """Remove a member of a set, or an entry of a map."""
    column, key = _named(kind, talk)
    _writable(column)
    if key is None:
        raise UsageError("Required parameter not found: param-key")
    ref, record = await _object(kind, talk)
    await talk.view.load(column.needs)
    value = column.value(talk.view, record)
    if isinstance(value, str):
        raise CommandError(f"Field '{column.name}' is neither a set nor a map. Use {kind.name}-param-clear.")
    if key not in value:
        raise CommandError(f"Key {key} is not in the {'map' if column.is_map else 'set'}")
    if column.is_set:
        await _change_set(kind, talk, column, ref, key, add=False)
    elif f"{kind.cls}.remove_from_{column.path[0]}" in talk.graph.methods:
        await talk.api.call(f"{kind.cls}.remove_from_{column.path[0]}", ref, key)
    else:
        entries = dict(await talk.api.call(f"{kind.cls}.get_{column.path[0]}", ref))
        entries.pop(key, None)
        await _set(kind, talk, column, ref, entries)


async def param_clear(kind: RecordClass, talk: Talk) -> None:
    """Empty a set, a map, a text or a reference."""
    column = _writable(kind.column(talk.line.need("param-name")))
    empty: Any
    if column.is_set:
        empty = []
    elif column.is_map:
        empty = {}
    elif isinstance(column.type, RefTo):
        empty = NULL_REF
    elif column.type == STRING:
        empty = ""
    else:
        raise CommandError(f"Field '{column.name}' cannot be cleared")
    ref, _ = await _object(kind, talk)
    await _set(kind, talk, column, ref, empty)


async def wait_filter(kind: RecordClass, talk: Talk, conditions: Sequence[tuple[Filter, bool]]) -> bool:
    """Whether an object satisfies all conditions; one that is turned round must not hold."""
    plain = [condition for condition, wanted in conditions if wanted]
    against = [condition for condition, wanted in conditions if not wanted]
    talk.view.forget()
    found = await matching(talk, kind, plain)
    for condition in against:
        excluded = {ref for ref, _ in await matching(talk, kind, (condition,))}
        found = [(ref, record) for ref, record in found if ref not in excluded]
    return bool(found)


_ACTIONS = (
    ("list", list_, "", "params <field>= <map>:<key>= <set>:contains=",
     "Show the {0} that satisfy all the filters given, each with the fields named in params."),
    ("param-list", param_list, "uuid", "", "Show every field of one of the {0}."),
    ("param-get", param_get, "uuid param-name", "param-key", "Show one field, or one entry of a map."),
    ("param-set", param_set, "uuid", "<field>= <map>:<key>=", "Change fields, or entries of maps."),
    ("param-add", param_add, "uuid param-name", "param-key <key>=", "Add a member to a set, or entries to a map."),
    ("param-remove", param_remove, "uuid param-name param-key", "", "Remove a member of a set, or an entry of a map."),
    ("param-clear", param_clear, "uuid param-name", "", "Empty a set, a map, a text or a reference."),
)  # fmt: skip
