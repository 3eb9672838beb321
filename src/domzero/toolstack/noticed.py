"""Settings that clients write as they like and on which depends what an object allows, which is then computed anew.

They are fields with derived messages; what these do is what the engine does for any field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from domzero.engine.binding import Implementation
from domzero.engine.context import Context
from domzero.engine.implicit import implementation
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack


class Setting(NamedTuple):
    """A key in a field of a class's objects that their admission looks at."""

    cls: str
    field: str
    key: str


SETTINGS = (
    Setting("SR", "other_config", "indestructible"),
    Setting("VM", "other_config", "default_template"),
    Setting("VM", "platform", "acpi"),
)

_Noticing: TypeAlias = Callable[[Ref], AbstractContextManager[None]]


def noticed(stack: Stack) -> dict[str, Implementation]:
    """Method name → function, of every message that writes one of the settings."""
    found: dict[str, Implementation] = {}
    for setting in SETTINGS:
        for prefix, function in _MESSAGES.items():
            name = f"{setting.cls}.{prefix}{setting.field}"
            write = implementation(stack.database.graph.methods[name], {})
            found[name] = partial(function, partial(_noticing, stack, setting), write)
    return found


@contextmanager
def _noticing(stack: Stack, setting: Setting, ref: Ref) -> Iterator[None]:
    before = _value(stack, setting, ref)
    yield
    if _value(stack, setting, ref) != before:
        stack.gates[setting.cls].refresh(ref)


def _value(stack: Stack, setting: Setting, ref: Ref) -> str | None:
    entries: Mapping[str, str] = stack.database.get(setting.cls, ref, setting.field)
    return entries.get(setting.key)


def _set(noticing: _Noticing, write: Implementation, context: Context, self: Ref, value: dict[str, str]) -> None:
    with noticing(self):
        write(context, self, value)


def _add_to(noticing: _Noticing, write: Implementation, context: Context, self: Ref, key: str, value: str) -> None:
    with noticing(self):
        write(context, self, key, value)


def _remove_from(noticing: _Noticing, write: Implementation, context: Context, self: Ref, key: str) -> None:
    with noticing(self):
        write(context, self, key)


_MESSAGES: Mapping[str, Callable[..., Any]] = {"set_": _set, "add_to_": _add_to, "remove_from_": _remove_from}
