"""The API as plain text, one line per field and call, for pinning in a file and reviewing as a difference."""

from __future__ import annotations

from collections.abc import Iterator

from domzero.idl.graph import Graph, Method
from domzero.idl.model import MISSING, Class, Field


def surface(graph: Graph) -> Iterator[str]:
    """Every class with its fields, then every method with all that a caller must know, then enums, errors and roles."""
    for name in sorted(graph.classes):
        yield from _class_lines(graph.classes[name])
    for name in sorted(graph.methods):
        yield _method_line(graph.methods[name])
    for name in sorted(graph.enums):
        yield f"enum {name}: {' '.join(graph.enums[name].values)}"
    for code in sorted(graph.errors):
        yield f"error {code}({', '.join(graph.errors[code].params)})"
    for role in sorted(graph.roles.values(), key=lambda one: one.rank):
        yield f"role {role.name}: {role.uuid}"


def _class_lines(cls: Class) -> Iterator[str]:
    yield f"class {cls.name}{_lifecycle(cls.since, cls.deprecated, cls.removed)}"
    for field in cls.fields:
        yield _field_line(cls, field)


def _field_line(cls: Class, field: Field) -> str:
    default = "" if field.default is MISSING else f" = {field.default!r}"
    lifecycle = _lifecycle(field.since, field.deprecated, field.removed)
    return f"field {cls.name}.{field.name}: {field.type}, {field.qualifier.value}{default}{lifecycle}"


def _method_line(method: Method) -> str:
    message = method.message
    params = ", ".join(
        f"{param.name}: {param.type}" + ("" if param.default is MISSING else f" = {param.default!r}")
        for param in message.params
    )
    kind = "implicit" if message.implicit else "explicit"
    words = [message.least_role]
    if message.asynchronous:
        words.append("Async")
    if not message.session:
        words.append("without session")
    if message.errors:
        words.append(f"raises {' '.join(message.errors)}")
    lifecycle = _lifecycle(message.since, message.deprecated, message.removed)
    return f"{kind} {method.name}({params}) -> {message.result}, {', '.join(words)}{lifecycle}"


def _lifecycle(since: str, deprecated: str | None, removed: str | None) -> str:
    words = [f"since {since}"]
    if deprecated:
        words.append(f"deprecated {deprecated}")
    if removed:
        words.append(f"removed {removed}")
    return f" [{', '.join(words)}]"
