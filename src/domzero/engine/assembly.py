"""The engine put together: one object that the composition root makes, starts and stops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NoReturn

from domzero.engine import (
    event_messages,
    role_messages,
    session_messages,
    subject_messages,
    task_messages,
)
from domzero.engine.binding import Implementation, collect, merge
from domzero.engine.clock import Clock
from domzero.engine.context import Contexts
from domzero.engine.database import Database
from domzero.engine.dispatch import Dispatcher
from domzero.engine.events import Events
from domzero.engine.implicit import SetHook
from domzero.engine.login import Door
from domzero.engine.passwords import Authenticator, Passwords
from domzero.engine.roles import Roles
from domzero.engine.session_messages import Accounts
from domzero.engine.sessions import SESSION_LIMIT, Sessions
from domzero.engine.task_messages import TASKS_OF_OTHERS, TaskDesk
from domzero.engine.tasks import Tasks
from domzero.engine.users import Users
from domzero.idl.types import Ref, Type

HOUSEKEEPING_EVERY = 30.0
"""Seconds between two looks for sessions and tasks that are over."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything that serves calls but knows nothing of what they are about.

    Use: `assemble`, then `start` once the database is loaded, then `dispatcher`; `keep_house` runs for as long as the
    server does; `stop` at the end.
    """

    database: Database
    events: Events
    clock: Clock
    roles: Roles
    users: Users
    sessions: Sessions
    tasks: Tasks
    door: Door
    contexts: Contexts

    def start(self) -> None:
        """Make role and root objects true, settle what the last run left unfinished, take over its sessions."""
        self.roles.reconcile(self.database)
        self.users.reconcile()
        self.tasks.recover()
        self.sessions.restore()

    def implementations(self) -> Mapping[str, Implementation]:
        """The messages of the engine's own classes: session, user, subject, role, task and event."""
        accounts = Accounts(self.door, self.sessions, self.users, self.roles)
        desk = TaskDesk(self.tasks, self.roles.rank(TASKS_OF_OTHERS))
        return merge(
            collect(session_messages, accounts),
            collect(subject_messages, accounts),
            collect(role_messages),
            collect(task_messages, desk),
            collect(event_messages),
        )

    def dispatcher(
        self,
        implementations: Mapping[str, Implementation],
        not_implemented: Collection[str],
        *,
        on_set: Mapping[str, SetHook] | None = None,
        local_methods: Collection[str] = frozenset({"session.local_logout"}),
    ) -> Dispatcher:
        """The dispatcher of the engine's messages and the given ones. Raises `BindingError` naming every gap."""
        return Dispatcher(
            self.database.graph, self.contexts, self.sessions, self.roles,
            merge(self.implementations(), implementations), not_implemented,
            on_set=on_set, local_methods=local_methods,
        )  # fmt: skip

    async def keep_house(self) -> NoReturn:
        """End expired sessions and forget old tasks, for ever."""
        while True:
            await self.clock.sleep(HOUSEKEEPING_EVERY)
            self.sessions.sweep()
            self.tasks.sweep()

    async def stop(self, patience: float = 5.0) -> None:
        """Let running calls end within some seconds, cancel the rest, and write down what was kept in memory."""
        await self.tasks.stop(patience)
        self.sessions.flush()
        await self.database.durable()


def assemble(
    database: Database, events: Events, clock: Clock, passwords: Passwords, *, this_host: Callable[[], Ref],
    encode_value: Callable[[Type, Any], str], authenticators: Sequence[Authenticator] | None = None,
    session_limit: int = SESSION_LIMIT, random: Random | None = None,
) -> Engine:  # fmt: skip
    """Make the parts and join them. `authenticators` are asked at login; without any, the built-in passwords are.

    `this_host` gives the host object of this machine, `encode_value` the XML-RPC text of a value (for `task.result`).
    """
    roles = Roles(database.graph)
    sessions = Sessions(database, roles, clock, this_host=this_host, ended=events.forget, limit=session_limit)
    users = Users(database, roles, passwords, (passwords,) if authenticators is None else authenticators)
    tasks = Tasks(database, clock, this_host=this_host, encode_value=encode_value)
    return Engine(
        database, events, clock, roles, users, sessions, tasks,
        door=Door(users, sessions, clock, random),
        contexts=Contexts(database, events, clock, tasks),
    )  # fmt: skip
