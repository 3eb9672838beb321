"""Which objects a command line means: filters on columns, and the selectors `vm=`, `host=`, `sr=`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from domzero.xe.columns import Column, Value
from domzero.xe.errors import CommandError, unknown_field
from domzero.xe.line import GLOBAL
from domzero.xe.records import RecordClass
from domzero.xe.talk import Talk
from domzero.xe.view import Object


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition: a column, the key within it where there is one, and the value wanted."""

    column: Column
    key: str | None
    wanted: str

    def holds(self, value: Value) -> bool:
        """Whether a value of the column satisfies it."""
        if self.key is None:
            return self.column.text(value) == self.wanted
        if isinstance(value, dict):
            return value.get(self.key) == self.wanted
        return isinstance(value, tuple) and self.wanted in value


def filters(kind: RecordClass, params: Sequence[tuple[str, str]], ignored: Collection[str]) -> tuple[Filter, ...]:
    """The conditions among some parameters; global ones and those ignored are none. Raises `CommandError`."""
    return tuple(
        filter_of(kind, name, value) for name, value in params if name not in GLOBAL and not _ignored(name, ignored)
    )


def _ignored(name: str, ignored: Collection[str]) -> bool:
    return name in ignored or any(each.endswith(":") and name.startswith((each, each[:-1] + "-")) for each in ignored)


def filter_of(kind: RecordClass, name: str, wanted: str) -> Filter:
    """A condition as it is written. Raises `CommandError` for an unknown field."""
    if name in kind.by_name:
        return Filter(kind.by_name[name], None, wanted)
    for column, key in _splits(kind, name):
        if column.is_map or (column.is_set and key == "contains"):
            return Filter(column, key, wanted)
    raise unknown_field(name)


def _splits(kind: RecordClass, name: str) -> list[tuple[Column, str]]:
    head, colon, key = name.partition(":")
    if colon:
        return [(kind.by_name[head], key)] if head in kind.by_name else []
    return keyed(kind, name)


def keyed(kind: RecordClass, name: str) -> list[tuple[Column, str]]:
    """The maps and keys that the old form `map-key` may mean, the longest map first."""
    found = [
        (column, name[len(column.name) + 1 :])
        for column in kind.columns
        if column.is_map and name.startswith(column.name + "-")
    ]
    return sorted(found, key=lambda pair: len(pair[0].name), reverse=True)


async def matching(talk: Talk, kind: RecordClass, conditions: Sequence[Filter]) -> list[tuple[str, Object]]:
    """The objects of a record class that satisfy all conditions. Raises `ApiError`."""
    await talk.view.load((kind.cls, *(needed for condition in conditions for needed in condition.column.needs)))
    found = [(ref, record) for ref, record in talk.view.table(kind.cls).items() if kind.covers(record)]
    for condition in conditions:
        found = [(ref, record) for ref, record in found if await _holds(talk, condition, ref, record)]
    return found


async def _holds(talk: Talk, condition: Filter, ref: str, record: Object) -> bool:
    return condition.holds(await condition.column.asked(talk.api, talk.view, ref, record))


NAMES = {"vm": ("name_label",), "host": ("name_label", "hostname"), "sr": ("name_label",)}
"""By selector, the fields besides the uuid that may be meant."""


async def selected(
    talk: Talk, kinds: Sequence[RecordClass], selector: str, ignored: Collection[str], *, control_domain: bool = False
) -> list[tuple[str, Object]]:
    """The objects that a command is to work on: one, or several when `--multiple` is given.

    `kinds` are the record classes that count, the first one's fields are the filters'; what is `ignored` is the
    command's own and chooses nothing. Control domains are never meant, or with `control_domain` only where nothing else
    can be. Raises `CommandError` when there is none, or are too many.
    """
    names, uuids = {selector, f"{selector}-name"} - {*ignored}, {f"{selector}-id", f"{selector}-uuid"} - {*ignored}
    asked = next((value for key, value in talk.line.params if key in names), None)
    conditions = filters(kinds[0], talk.line.params, {*ignored, *names, *uuids})
    uuid = next((value for key, value in talk.line.params if key in uuids), None)
    named = {
        ref: record
        for kind in kinds
        for ref, record in await matching(talk, kind, conditions)
        if (uuid is None or record["uuid"] == uuid)
        and (asked is None or asked in (record["uuid"], *(record[name] for name in NAMES[selector])))
    }
    found = {ref: record for ref, record in named.items() if not record.get("is_control_domain")}
    if not found and control_domain:
        found = named
    several = kinds[0].several
    if not found:
        raise CommandError(f"No matching {several} found")
    if len(found) > 1 and not talk.line.flag("multiple"):
        raise CommandError(f"Multiple matches {several} found. --multiple required to complete the operation")
    return list(found.items())
