"""From a method's name and decoded parameters to an answer.

The order of the checks (xapi's): session, role, number of parameters, their types, then whether the message is carried
out at all, then its task, then the implementation. Getters are answered on a short way that gives up and takes the long
one as soon as anything is unusual, so that errors have one source.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from domzero.engine.audit import UNTOLD, Auditor, Deed
from domzero.engine.binding import Implementation, bind
from domzero.engine.calls import Answer, Origin
from domzero.engine.coercion import mismatch, printable
from domzero.engine.context import Context, Contexts
from domzero.engine.errors import ApiError
from domzero.engine.implicit import SetHook
from domzero.engine.introspection import ASYNC, IS_ALIVE, LIST_METHODS, method_names
from domzero.engine.journal import own_fate
from domzero.engine.roles import Roles
from domzero.engine.routes import Route, Routes
from domzero.engine.sessions import Session, Sessions
from domzero.engine.tasks import one_line
from domzero.idl.graph import Graph
from domzero.idl.types import STRING, STRING_SET, RefTo

Guard: TypeAlias = Callable[[str, Origin], None]
"""Looks at a call before anything else and raises `ApiError` to refuse it: the host is a slave, or still boots."""
Quick: TypeAlias = Callable[[Sequence[Any]], Answer | None]

log = logging.getLogger(__name__)


class Dispatcher:
    """Takes every call of every road. Raises `BindingError` when implementations and graph do not fit together.

    `local_methods` are the calls that a session of `session.slave_local_login…` may make. `guard` may be set and taken
    away at any time, `auditor` set before the first call.
    """

    def __init__(
        self, graph: Graph, contexts: Contexts, sessions: Sessions, roles: Roles,
        implementations: Mapping[str, Implementation], not_implemented: Collection[str], *,
        on_set: Mapping[str, SetHook] | None = None, local_methods: Collection[str] = frozenset(),
    ) -> None:  # fmt: skip
        bind(graph, implementations, not_implemented)
        self.guard: Guard | None = None
        self.auditor: Auditor | None = None
        self._graph = graph
        self._not_implemented = not_implemented
        self._contexts = contexts
        self._database = contexts.database
        self._tasks = contexts.tasks
        self._sessions = sessions
        self._local_methods = frozenset(local_methods)
        self._routes = Routes(graph, roles, implementations, not_implemented, on_set or {})
        self._known: dict[str, Route] = {}
        self._quick: dict[str, Quick] = {}

    @cached_property
    def method_names(self) -> tuple[str, ...]:
        """Every call that is answered; see `introspection`."""
        return method_names(self._graph, self._not_implemented)

    def call(self, method: str, params: Sequence[Any], origin: Origin) -> Answer | Awaitable[Answer]:
        """Carry out a call: the answer, or what to await for it. Raises `ApiError` and nothing else, now or then.

        A changing call has its changes on disk before it answers. Cancelling the awaitable does not stop the work,
        except of calls that only wait.
        """
        if self.guard is None:
            quick = self._quick.get(method)
            if quick is not None:
                answer = quick(params)
                if answer is not None:
                    return answer
        else:
            self.guard(method, origin)
        route = self._known.get(method) or self._learn(method)
        if route is not None:
            return self._call_route(route, params, origin)
        return self._call_special(method, params, origin)

    def hold_changes(self, held: bool) -> None:
        """Refuse calls that change something, or do so no more: for the time before a restart that would lose them."""
        self.guard = self._refuse_changes if held else None

    def _refuse_changes(self, method: str, _origin: Origin) -> None:
        route = self._routes.find(method.removeprefix(ASYNC))
        if route is not None and route.changes and not route.name.startswith(("session.", "task.")):
            raise ApiError("HOST_STILL_BOOTING")

    def _learn(self, name: str) -> Route | None:
        """The route of a method that is called for the first time, under this name; None when there is none."""
        route = self._routes.find(name)
        if route is None:
            return None
        self._known[name] = route
        method = self._routes.derived(route)
        if method is not None and route.function is not None and route.needed_rank is not None:
            cls, field = method.cls.name, method.message.field
            if method.message.implicit == "get_record":
                self._quick[name] = self._quick_reader(route, cls, None)
            elif method.message.implicit == "get_field" and field is not None:
                self._quick[name] = self._quick_reader(route, cls, self._database.layouts[cls].position[field])
        return route

    def _quick_reader(self, route: Route, cls: str, position: int | None) -> Quick:
        """Answers the usual case of a getter: a session that may, an object that exists. Else None."""
        live, monotonic = self._sessions.live, self._contexts.clock.monotonic
        idle_limit, find = self._sessions.idle_limit, self._database.tables.by_class[cls].rows.get
        needed, result = route.needed_rank or 0, route.result

        def quick(params: Sequence[Any]) -> Answer | None:
            if len(params) != 2:
                return None
            token, ref = params
            if not (isinstance(token, str) and isinstance(ref, str)):
                return None
            session = live.get(token)
            if session is None or session.rank < needed or session.emergency or session.lent:
                return None
            row = find(ref)
            if row is None:
                return None
            now = monotonic()
            if now - session.last_active > idle_limit:
                return None
            session.last_active = now
            return Answer(result, row.record if position is None else row.record.values_[position])

        return quick

    def _call_route(self, route: Route, params: Sequence[Any], origin: Origin) -> Answer | Awaitable[Answer]:
        session, arguments = self._checked(route, params, origin)
        handle = self._tasks.handle(route.name, session)
        context = self._contexts.of_call(route.name, session, origin, handle)
        if not route.waits:
            return self._answer_at_once(route, context, arguments)
        if route.abandoned_with_caller:
            return self._wait_with_caller(route, context, arguments)
        return self._wait(route, context, arguments)

    def _checked(self, route: Route, params: Sequence[Any], origin: Origin) -> tuple[Session | None, list[Any]]:
        """Session and arguments of a call that may and can be carried out."""
        session: Session | None = None
        if route.needed_rank is not None:
            session = self._session(params, origin)
            if session.emergency and route.name not in self._local_methods:
                raise ApiError("SESSION_INVALID", session.ref)
            if session.rank < route.needed_rank:
                text = "No role of this session permits the call."
                denied = ApiError("RBAC_PERMISSION_DENIED", route.permission, text)
                if self.auditor is not None:
                    self.auditor.begin(route, session, origin, params[1:]).failed(denied)
                raise denied
            params = params[1:]
        arguments = route.arguments(list(params))
        if route.function is None:
            raise route.refuse()
        return session, arguments

    def _session(self, params: Sequence[Any], origin: Origin) -> Session:
        if not params:
            raise ApiError("SESSION_INVALID", "")
        token = params[0]
        if token is None:
            # What the official Python binding sends once it has logged out.
            raise ApiError("SESSION_INVALID", "")
        if not isinstance(token, str):
            raise mismatch(RefTo("session"), token)
        return self._sessions.use(printable(token), origin)

    def _answer_at_once(self, route: Route, context: Context, arguments: list[Any]) -> Answer | Awaitable[Answer]:
        assert route.function is not None
        before, deed = self._database.generation, self._begin(route, context, arguments)
        try:
            answer = Answer(route.result, route.function(context, *arguments))
        except ApiError as problem:
            deed.failed(problem)
            raise
        except Exception as problem:
            deed.failed(problem)
            raise unexpected(route, problem) from problem
        finally:
            self._tasks.release(context.task)
        # Whoever called may be gone before the disk has it: it is done already.
        deed.done(answer.value)
        # What there was nothing to do for may rest on what another call did, which is not on disk yet either.
        unsaved = self._database.generation != before or (route.changes and self._database.has_unsaved)
        return self._durable(answer, deed) if unsaved and not route.reads else answer

    def _begin(self, route: Route, context: Context, arguments: list[Any]) -> Deed:
        if self.auditor is None or not route.changes:
            return UNTOLD
        return self.auditor.begin(route, context.session, context.origin, arguments)

    async def _durable(self, answer: Answer, deed: Deed = UNTOLD) -> Answer:
        try:
            await self._database.durable()
        except ApiError as problem:
            deed.failed(problem)
            raise
        return answer

    async def _wait(self, route: Route, context: Context, arguments: list[Any]) -> Answer:
        return Answer(route.result, await self._tasks.call(context.task, self._carried_out(route, context, arguments)))

    async def _wait_with_caller(self, route: Route, context: Context, arguments: list[Any]) -> Answer:
        session = context.session
        if session is not None:
            if self._sessions.live.get(session.ref) is not session:
                # It ended between the call's arrival and its turn: nobody would wake the call any more.
                raise ApiError("SESSION_INVALID", session.ref)
            session.busy += 1
        try:
            return Answer(route.result, await self._carried_out(route, context, arguments))
        finally:
            if session is not None:
                session.busy -= 1
                session.last_active = self._contexts.clock.monotonic()
            self._tasks.release(context.task)

    async def _carried_out(self, route: Route, context: Context, arguments: list[Any]) -> Any:
        """The value that the implementation gives, its changes on disk. Raises `ApiError` or `CancelledError`."""
        assert route.function is not None
        own_fate()
        deed = self._begin(route, context, arguments)
        try:
            value = route.function(context, *arguments)
            if route.waits:
                value = await value
            await self._database.durable()
        except (ApiError, asyncio.CancelledError) as problem:
            deed.failed(problem)
            raise
        except Exception as problem:
            deed.failed(problem)
            raise unexpected(route, problem) from problem
        deed.done(value)
        return value

    def _call_special(self, method: str, params: Sequence[Any], origin: Origin) -> Answer | Awaitable[Answer]:
        if method == LIST_METHODS:
            return Answer(STRING_SET, self.method_names, bare=True)
        if method.startswith(IS_ALIVE):
            echoed = params[0] if params and isinstance(params[0], str) else ""
            return Answer(STRING, printable(echoed), bare=True)
        route = self._routes.find(method.removeprefix(ASYNC)) if method.startswith(ASYNC) else None
        if route is None or route.name != method.removeprefix(ASYNC):
            raise ApiError("MESSAGE_METHOD_UNKNOWN", printable(method))
        return self._start(route, params, origin)

    def _start(self, route: Route, params: Sequence[Any], origin: Origin) -> Awaitable[Answer]:
        """`Async`: a task does the work; what is wrong with the call itself is answered without one."""
        if not route.asynchronous:
            self._session(params, origin)
            raise ApiError("INTERNAL_ERROR", f"{route.name} has no asynchronous form.")
        session, arguments = self._checked(route, params, origin)
        handle = self._tasks.handle(ASYNC + route.name, session)
        context = self._contexts.of_call(route.name, session, origin, handle)
        self._tasks.start(handle, self._carried_out(route, context, arguments), route.result)
        return self._durable(Answer(RefTo("task"), handle.ref))


def unexpected(route: Route, problem: Exception) -> ApiError:
    """Logs a failure that nobody foresaw, with its origin but without parameters, and makes `INTERNAL_ERROR` of it."""
    where = "".join(traceback.format_tb(problem.__traceback__))
    said = type(problem).__name__ if route.secret else one_line(problem)
    log.error("%s failed in a way that it should not: %s\n%s", route.name, said, where)
    return ApiError("INTERNAL_ERROR", said)
