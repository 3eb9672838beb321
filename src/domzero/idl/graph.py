"""The checked graph: every row of the datamodel, names resolved, derived messages added.

Everything else in domzero asks this object what exists. It is built once at start and never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from domzero.idl.implicit import implicit_messages
from domzero.idl.model import MISSING, RUNTIME, Class, Enum, Error, Field, Message, Role
from domzero.idl.types import NULL_REF, EnumOf, RecordOf, RefTo, SetOf, Type, parts

Row = TypeVar("Row")


class DatamodelError(Exception):
    """The rows contradict each other; the text lists every contradiction found, one a line."""


@dataclass(frozen=True, slots=True)
class Method:
    """A message in its class, under the name that clients call (`"VM.start"`)."""

    cls: Class
    message: Message

    @property
    def name(self) -> str:
        """The full name on the wire."""
        return f"{self.cls.name}.{self.message.name}"


class Graph:
    """All classes, enums, errors and roles by name, and all methods, explicit and derived.

    Raises `DatamodelError` when the rows do not fit together.
    """

    def __init__(self, classes: Iterable[Class], errors: Iterable[Error], roles: Iterable[Role]) -> None:
        problems: list[str] = []
        self.classes: Mapping[str, Class] = _by_name(classes, "class", lambda c: c.name, problems)
        self.errors: Mapping[str, Error] = _by_name(errors, "error", lambda e: e.code, problems)
        self.roles: Mapping[str, Role] = _by_name(roles, "role", lambda r: r.name, problems)
        all_enums = (enum for cls in self.classes.values() for enum in cls.enums)
        self.enums: Mapping[str, Enum] = _by_name(all_enums, "enum", lambda e: e.name, problems)
        self.fields: Mapping[str, Mapping[str, Field]] = {
            cls.name: _by_name(cls.fields, f"field of {cls.name}", lambda f: f.name, problems)
            for cls in self.classes.values()
        }
        self.methods: Mapping[str, Method] = dict(self._all_methods(problems))
        for cls in self.classes.values():
            problems.extend(self._check_class(cls))
        for method in self.methods.values():
            problems.extend(self._check_method(method))
        if problems:
            raise DatamodelError("\n".join(problems))

    def roles_from(self, least: str) -> frozenset[str]:
        """The names of all roles that may do what needs at least the given one."""
        rank = self.roles[least].rank
        return frozenset(role.name for role in self.roles.values() if role.rank >= rank)

    def _all_methods(self, problems: list[str]) -> Iterable[tuple[str, Method]]:
        for cls in self.classes.values():
            messages = _by_name(cls.messages, f"message of {cls.name}", lambda m: m.name, problems)
            for message in cls.messages:
                yield f"{cls.name}.{message.name}", Method(cls, message)
            for message in implicit_messages(cls):
                if message.name not in messages:
                    yield f"{cls.name}.{message.name}", Method(cls, message)

    def _check_class(self, cls: Class) -> Iterable[str]:
        if not cls.doc:
            yield f"{cls.name}: no description"
        for field in cls.fields:
            where = f"{cls.name}.{field.name}"
            if not field.doc:
                yield f"{where}: no description"
            yield from self._check_type(where, field.type)
            yield from self._check_default(where, field)
            if field.inverse is not None:
                yield from self._check_inverse(where, cls, field, field.inverse)

    def _check_default(self, where: str, field: Field) -> Iterable[str]:
        if field.default is MISSING:
            return
        enum = self.enums.get(field.type.enum) if isinstance(field.type, EnumOf) else None
        if enum is not None and field.default not in enum.values:
            yield f"{where}: default {field.default!r} is not in enum {enum.name}"
        if isinstance(field.type, RefTo) and not str(field.default).startswith("Op"):
            yield f"{where}: default {field.default!r} is no reference such as {NULL_REF}"

    def _check_inverse(self, where: str, cls: Class, field: Field, inverse: str) -> Iterable[str]:
        other, _, name = inverse.partition(".")
        target = self.fields.get(other, {}).get(name)
        if field.type != SetOf(RefTo(other)) or field.qualifier is not RUNTIME:
            yield f"{where}: an inverse needs a runtime set of {other} references"
        if target is None or target.type not in (RefTo(cls.name), SetOf(RefTo(cls.name))):
            yield f"{where}: {inverse} does not refer to {cls.name}"

    def _check_method(self, method: Method) -> Iterable[str]:
        message = method.message
        if not message.doc:
            yield f"{method.name}: no description"
        if message.least_role not in self.roles:
            yield f"{method.name}: unknown role {message.least_role}"
        for code in message.errors:
            if code not in self.errors:
                yield f"{method.name}: unknown error {code}"
        yield from self._check_type(method.name, message.result)
        optional = False
        for param in message.params:
            yield from self._check_type(f"{method.name}({param.name})", param.type)
            if optional and param.default is MISSING:
                yield f"{method.name}({param.name}): follows an optional parameter but is required"
            optional = param.default is not MISSING

    def _check_type(self, where: str, type_: Type) -> Iterable[str]:
        for part in parts(type_):
            match part:
                case EnumOf(name) if name not in self.enums:
                    yield f"{where}: unknown enum {name}"
                case RefTo(name) | RecordOf(name) if name not in self.classes:
                    yield f"{where}: unknown class {name}"
                case _:
                    continue


def _by_name(rows: Iterable[Row], what: str, name: Callable[[Row], str], problems: list[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        if name(row) in found:
            problems.append(f"{what} {name(row)} is defined twice")
        found[name(row)] = row
    return found
