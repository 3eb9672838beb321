"""Commands that are one message: each parameter of it is made from the command line by a small function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, RefTo, SetOf, Type
from domzero.xe.command import Command
from domzero.xe.errors import CommandError, Finished, missing
from domzero.xe.failures import in_short
from domzero.xe.filtering import selected
from domzero.xe.line import Line
from domzero.xe.talk import Talk
from domzero.xe.values import number, read, shown, word
from domzero.xe.view import Object

Convert: TypeAlias = Callable[[Talk, Line], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Argument:
    """How a parameter of a message comes from the command line; `name` is empty for one that does not."""

    name: str
    required: bool
    convert: Convert


def text(name: str, default: str | None = None) -> Argument:
    """A text; required where there is no default."""

    async def convert(_: Talk, line: Line) -> str:
        value = line.get(name)
        return value if value is not None else default if default is not None else line.need(name)

    return Argument(name, default is None, convert)


def integer(name: str, default: int | None = None) -> Argument:
    """A whole number or a size, with or without unit."""

    async def convert(_: Talk, line: Line) -> int:
        value = line.get(name)
        return default if value is None and default is not None else number(name, line.need(name))

    return Argument(name, default is None, convert)


def typed(name: str, type_: Type, default: Any = None) -> Argument:
    """A value of a type; required where there is no default."""

    async def convert(talk: Talk, line: Line) -> Any:
        if default is not None and line.get(name) is None:
            return default
        return read(name, line.need(name), type_, talk.graph)

    return Argument(name, default is None, convert)


def flag(name: str, default: bool = False) -> Argument:
    """A yes or no."""

    async def convert(_: Talk, line: Line) -> bool:
        return default if line.get(name) is None else line.flag(name)

    return Argument(name, False, convert)


def choice(name: str, enum: str, default: str | None = None) -> Argument:
    """A word of an enum, in whatever case."""

    async def convert(talk: Talk, line: Line) -> str:
        value = line.get(name)
        if value is None and default is not None:
            return default
        return word(name, line.need(name), tuple(talk.graph.enums[enum].values))

    return Argument(name, default is None, convert)


def mapping(name: str) -> Argument:
    """The entries given as `name:key=value`."""

    async def convert(_: Talk, line: Line) -> dict[str, str]:
        return line.mapping(name)

    return Argument(f"{name}:", False, convert)


def obj(cls: str, name: str = "uuid", *, optional: bool = False) -> Argument:
    """The object of that uuid; nothing where it may be left out and is."""

    async def convert(talk: Talk, line: Line) -> str:
        value = line.get(name)
        if optional and not value:
            return NULL_REF
        return await talk.by_uuid(cls, line.need(name))

    return Argument(name, not optional, convert)


def either(cls: str, *names: str) -> Argument:
    """The object of the uuid that is given under one of several names."""

    async def convert(talk: Talk, line: Line) -> str:
        for name in names:
            value = line.get(name)
            if value is not None:
                return await talk.by_uuid(cls, value)
        raise missing(names[0])

    return Argument(", ".join(names), False, convert)


def objects(cls: str, name: str, *, optional: bool = False) -> Argument:
    """Objects whose uuids are separated by commas; none where they may be left out and are."""

    async def convert(talk: Talk, line: Line) -> list[str]:
        given = line.get(name) or "" if optional else line.need(name)
        return [await talk.by_uuid(cls, one.strip()) for one in given.split(",") if one.strip()]

    return Argument(name, not optional, convert)


def host(name: str = "host-uuid") -> Argument:
    """The host of that uuid, or the pool's coordinator."""

    async def convert(talk: Talk, line: Line) -> str:
        value = line.get(name)
        return await talk.by_uuid("host", value) if value else await coordinator(talk)

    return Argument(name, False, convert)


def fixed(value: Any) -> Argument:
    """A value that the command line does not change."""

    async def convert(_talk: Talk, _line: Line) -> Any:
        return value

    return Argument("", False, convert)


def content(name: str) -> Argument:
    """The text of a file of the client's machine."""

    async def convert(talk: Talk, line: Line) -> str:
        return (await talk.client.load(line.need(name))).decode("utf-8", "replace")

    return Argument(name, True, convert)


def file_name(name: str) -> Argument:
    """The last part of a file's name, where the parameter is taken for its content too."""

    async def convert(_: Talk, line: Line) -> str:
        return line.need(name).rpartition("/")[2]

    return Argument("", True, convert)


def the_pool() -> Argument:
    """The pool."""

    async def convert(talk: Talk, _line: Line) -> str:
        return await pool(talk)

    return Argument("", False, convert)


async def pool(talk: Talk) -> str:
    """The reference of the pool. Raises `ApiError`."""
    return str(next(iter(await talk.api.call("pool.get_all"))))


async def coordinator(talk: Talk) -> str:
    """The reference of the pool's coordinator. Raises `ApiError`."""
    return str(await talk.api.call("pool.get_master", await pool(talk)))


def message(name: str, doc: str, method: str, *arguments: Argument, optional: str = "", **kind: Any) -> Command:
    """A command that makes one call and prints what it gives: objects by their uuids.

    `optional` names parameters that are taken for older clients' sake and change nothing; `kind` is handed to
    `Command`.
    """

    async def run(talk: Talk) -> None:
        params = [await argument.convert(talk, talk.line) for argument in arguments]
        await printed(talk, method, await talk.api.call(method, *params))

    return Command(name, doc, run, _names(arguments, True), (*_names(arguments, False), *optional.split()),
                   needs=(method,), arity=len(arguments), **kind)  # fmt: skip


def each(
    name: str, doc: str, selector: str, method: str, *arguments: Argument, also: Sequence[str] = (), optional: str = "",
    **kind: Any,
) -> Command:  # fmt: skip
    """A command that makes one call for every object selected, which is the message's first parameter.

    `also` names further record classes whose objects may be selected.
    """

    async def one(talk: Talk, ref: str, _: Object) -> None:
        params = [await argument.convert(talk, talk.line) for argument in arguments]
        await printed(talk, method, await talk.api.call(method, ref, *params))

    return for_each(name, doc, selector, one, _names(arguments, True),
                    (*_names(arguments, False), *optional.split()), (method,), also, arity=1 + len(arguments),
                    **kind)  # fmt: skip


def for_each(
    name: str, doc: str, selector: str, one: Callable[[Talk, str, Object], Awaitable[None]],
    required: tuple[str, ...] = (), optional: tuple[str, ...] = (), needs: tuple[str, ...] = (),
    also: Sequence[str] = (), control_domain: bool = False, **kind: Any,
) -> Command:  # fmt: skip
    """A command that does something to every object selected. With `--multiple`, one that fails stops no other.

    `control_domain` tells whether one may be meant; see `filtering.selected`.
    """

    async def run(talk: Talk) -> None:
        kinds = [talk.records[selector], *(talk.records[other] for other in also)]
        chosen = await selected(talk, kinds, selector, {*required, *optional}, control_domain=control_domain)
        await to_each(talk, name, chosen, one)

    return Command(name, doc, run, required, optional, needs, selector=selector, **kind)


async def to_each(
    talk: Talk, name: str, chosen: Sequence[tuple[str, Object]], one: Callable[[Talk, str, Object], Awaitable[None]]
) -> None:
    """Do something to every object chosen. Of several, one that fails stops no other; raises `Finished` then."""
    if len(chosen) == 1:
        await one(talk, *chosen[0])
        return
    failed = False
    for ref, record in chosen:
        try:
            await one(talk, ref, record)
        except (ApiError, CommandError) as error:
            failed = True
            said = f"{error}\n" if isinstance(error, CommandError) else await in_short(error, talk.graph, talk.api)
            await talk.client.complain(f"Operation {name} failed on {record['uuid']}: {said}")
    if failed:
        raise Finished(1)


def _names(arguments: Sequence[Argument], required: bool) -> tuple[str, ...]:
    named = [argument.name for argument in arguments if argument.name and argument.required == required]
    return tuple(name for names in named for name in names.split(", "))


async def printed(talk: Talk, method: str, value: Any) -> None:
    """Print the result of a call: objects by their uuids, nothing for nothing."""
    type_ = talk.graph.methods[method].message.result
    if value is None:
        return
    match type_:
        case RefTo(cls):
            await talk.value(await talk.uuid(cls, value))
        case SetOf(RefTo(cls)):
            await talk.values([await talk.uuid(cls, one) for one in value])
        case SetOf(item):
            await talk.values([shown(one, item) for one in value])
        case _:
            await talk.value(shown(value, type_))
