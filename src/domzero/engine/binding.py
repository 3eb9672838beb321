"""Which Python function carries out which message; verified at start, so that no call can meet a missing function.

An implementation takes a `Context` first and then the message's parameters by the model's names, with a trailing
underscore where Python reserves the word (`class_`). It is a plain function when it is quick and never waits, else a
coroutine function. Functions that need more get it bound in front with `functools.partial` (`collect` does that).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from domzero.idl.graph import Graph, Method
from domzero.idl.model import Message

Function = TypeVar("Function", bound=Callable[..., Any])
Implementation = Callable[..., Any]

KEPT_RELEASES: Collection[str] = frozenset({"rio", "miami"})
"""Messages of these releases (4.0 and 4.1) are served although later releases removed them."""

_NAMES = "implements"
_ABANDONED = "abandoned_with_caller"


class BindingError(Exception):
    """Messages and implementations do not match; the text names every gap, one a line."""


def implements(name: str, *, abandoned_with_caller: bool = False) -> Callable[[Function], Function]:
    """Mark a function as the implementation of a message. Nothing is registered anywhere; `collect` finds the mark.

    A call runs to its end although its caller hung up, unless `abandoned_with_caller`: such calls only wait.
    """

    def mark(function: Function) -> Function:
        setattr(function, _NAMES, (*getattr(function, _NAMES, ()), name))
        setattr(function, _ABANDONED, abandoned_with_caller)
        return function

    return mark


def collect(module: ModuleType, *bound: object) -> dict[str, Implementation]:
    """Every function of the module that is marked, by message name, with the given values bound in front."""
    found: dict[str, Implementation] = {}
    for function in vars(module).values():
        if inspect.isfunction(function) and function.__module__ == module.__name__:
            for name in getattr(function, _NAMES, ()):
                if name in found:
                    raise BindingError(f"{name} is implemented twice in {module.__name__}")
                found[name] = partial(function, *bound) if bound else function
    return found


def merge(*groups: Mapping[str, Implementation]) -> dict[str, Implementation]:
    """All groups as one. Raises `BindingError` when two of them hold the same message."""
    merged: dict[str, Implementation] = {}
    for group in groups:
        twice = sorted(merged.keys() & group.keys())
        if twice:
            raise BindingError("\n".join(f"{name} is implemented twice" for name in twice))
        merged.update(group)
    return merged


def bind(
    graph: Graph, implementations: Mapping[str, Implementation], not_implemented: Collection[str]
) -> Mapping[str, Implementation]:
    """Check that every explicit message is implemented once, with the model's parameters, or listed as missing.

    An implicit message may be overridden. Messages that a release removed need neither. Returns the implementations.
    Raises `BindingError` naming every gap.
    """
    problems: list[str] = []
    for name in sorted(set(implementations) | set(not_implemented)):
        problems.extend(_misplaced(graph, name, name in implementations, name in not_implemented))
    for name, method in graph.methods.items():
        function = implementations.get(name)
        if function is not None:
            problems.extend(_mismatched(name, method.message, function))
        elif method.message.implicit is None and name not in not_implemented and not is_removed(method.message):
            problems.append(f"{name}: neither implemented nor listed as not implemented")
    if problems:
        raise BindingError("\n".join(problems))
    return implementations


def is_removed(message: Message) -> bool:
    """Whether calls of the message answer `MESSAGE_REMOVED`."""
    return message.removed is not None and message.since not in KEPT_RELEASES


def is_coroutine(function: Implementation) -> bool:
    """Whether calling the function gives something to await."""
    return inspect.iscoroutinefunction(_inner(function)[0])


def is_abandoned_with_caller(function: Implementation) -> bool:
    """Whether a call ends when its caller goes away."""
    return bool(getattr(_inner(function)[0], _ABANDONED, False))


def _inner(function: Implementation) -> tuple[Implementation, int]:
    """The function that was written, and how many of its first parameters are bound."""
    bound = 0
    while isinstance(function, partial):
        bound += len(function.args)
        function = function.func
    return (function.__func__, bound + 1) if inspect.ismethod(function) else (function, bound)


def _misplaced(graph: Graph, name: str, implemented: bool, listed: bool) -> Iterable[str]:
    method: Method | None = graph.methods.get(name)
    if method is None:
        yield f"{name}: there is no such message"
    elif implemented and listed:
        yield f"{name}: implemented, and listed as not implemented"
    elif listed and method.message.implicit is not None:
        yield f"{name}: derived, so it cannot be missing"
    elif is_removed(method.message):
        yield f"{name}: removed, so it is neither implemented nor missing"


def _mismatched(name: str, message: Message, function: Implementation) -> Iterable[str]:
    inner, bound = _inner(function)
    # inspect.signature says the same, and takes a tenth of a start for it.
    code = getattr(inner, "__code__", None)
    if code is None:
        yield f"{name}: its implementation cannot be inspected"
        return
    actual = code.co_varnames[bound : code.co_argcount + code.co_kwonlyargcount]
    expected = [param.name for param in message.params]
    if actual[:1] != ("context",):
        yield f"{name}: its implementation must take the context first"
    if (given := [parameter.removesuffix("_") for parameter in actual[1:]]) != expected:
        yield f"{name}: the model's parameters are {expected}, the implementation's {given}"
    variable = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    if variable or code.co_kwonlyargcount or code.co_posonlyargcount:
        yield f"{name}: its implementation must take plain positional parameters"
