"""A route is all that the dispatcher knows about a message, worked out once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from domzero.engine import implicit
from domzero.engine.binding import Implementation, is_abandoned_with_caller, is_coroutine, is_removed
from domzero.engine.coercion import Coercer, coercer
from domzero.engine.errors import ApiError
from domzero.engine.roles import Roles
from domzero.idl.graph import Graph, Method
from domzero.idl.model import MISSING, Message
from domzero.idl.types import Type

_SECRETS = ("pwd", "password", "psecret", "secret")
_LOOKING = frozenset((
    "assert", "compute", "from", "get", "list", "maximise", "next", "query", "register", "retrieve", "unregister",
    "wait",
))  # fmt: skip
"""First words of messages that change nothing, where everybody may call them."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One message. `needed_rank` is None for messages without a session; `function` is None for those refused."""

    name: str
    permission: str
    needed_rank: int | None
    parameters: tuple[tuple[str, Type], ...]
    coercers: tuple[Coercer, ...]
    required: int
    defaults: tuple[Any, ...]
    result: Type
    function: Implementation | None
    refusal: tuple[str, ...]
    asynchronous: bool
    waits: bool
    abandoned_with_caller: bool
    reads: bool
    changes: bool
    secret: bool

    def arguments(self, params: list[Any] | tuple[Any, ...]) -> list[Any]:
        """The inner values of the parameters after the session, defaults included.

        Raises `MESSAGE_PARAMETER_COUNT_MISMATCH` and what the coercers raise.
        """
        received, most = len(params), len(self.coercers)
        if not self.required <= received <= most:
            expected = self.required if received < self.required else most
            raise ApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", self.name, str(expected), str(received))
        arguments = [coerce(value) for coerce, value in zip(self.coercers, params, strict=False)]
        arguments.extend(self.defaults[received:])
        return arguments

    def refuse(self) -> ApiError:
        """What a call of a message that is not carried out gets."""
        return ApiError(*self.refusal)


class Routes:
    """A route for every message of the graph, made when it is first asked for: a start need not make all of them.

    The implementations have been checked by `binding.bind`.
    """

    def __init__(
        self, graph: Graph, roles: Roles, implementations: Mapping[str, Implementation],
        not_implemented: Collection[str], on_set: Mapping[str, implicit.SetHook],
    ) -> None:  # fmt: skip
        self._graph = graph
        self._roles = roles
        self._implementations = implementations
        self._not_implemented = not_implemented
        self._on_set = on_set
        self._made: dict[str, Route] = {}

    def find(self, name: str) -> Route | None:
        """The route of a message by its name, or by the one with an underscore for the dot; None when there is none."""
        method = self._graph.methods.get(name) or self._aliases.get(name)
        if method is None:
            return None
        route = self._made.get(method.name)
        if route is None:
            route = self._made[method.name] = self._make(method)
        return route

    def derived(self, route: Route) -> Method | None:
        """The message of a route when nothing but the graph says what it does."""
        method = self._graph.methods[route.name]
        return None if method.message.implicit is None or route.name in self._implementations else method

    @cached_property
    def _aliases(self) -> Mapping[str, Method]:
        # Of two messages with the same alias the first has it.
        return {name.replace(".", "_", 1): method for name, method in reversed(list(self._graph.methods.items()))}

    def _make(self, method: Method) -> Route:
        refusal: tuple[str, ...] = ()
        function: Implementation | None = None
        if is_removed(method.message):
            refusal = ("MESSAGE_REMOVED",)
        elif method.name in self._not_implemented:
            refusal = ("NOT_IMPLEMENTED", method.name)
        else:
            function = self._implementations.get(method.name) or implicit.implementation(method, self._on_set)
        return _route(self._graph, self._roles, method, function, refusal)


def _route(
    graph: Graph, roles: Roles, method: Method, function: Implementation | None, refusal: tuple[str, ...]
) -> Route:
    message = method.message
    return Route(
        name=method.name,
        permission=method.name.lower(),
        needed_rank=roles.rank(message.least_role) if message.session else None,
        parameters=tuple((param.name, param.type) for param in message.params),
        coercers=tuple(coercer(graph, param.type, param.name) for param in message.params),
        required=sum(param.default is MISSING for param in message.params),
        defaults=tuple(param.default for param in message.params),
        result=message.result,
        function=function,
        refusal=refusal,
        asynchronous=message.asynchronous,
        waits=function is not None and is_coroutine(function),
        abandoned_with_caller=function is not None and is_abandoned_with_caller(function),
        reads=message.implicit in implicit.READERS,
        changes=_changes(graph, message),
        secret=_carries_secret(message),
    )


def _changes(graph: Graph, message: Message) -> bool:
    """Whether a call is worth telling of afterwards: it changes something, or not everybody may make it."""
    if message.implicit is not None:
        return message.implicit not in implicit.READERS
    return graph.roles[message.least_role].rank > 0 or message.name.partition("_")[0] not in _LOOKING


def _carries_secret(message: Message) -> bool:
    return any(word in param.name.lower() for param in message.params for word in _SECRETS)
