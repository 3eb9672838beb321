"""What an implementation is told about the call it carries out."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.engine.calls import LOCAL, Origin
from domzero.engine.clock import Clock
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.events import Events
from domzero.engine.sessions import Session
from domzero.engine.task_handle import TaskHandle
from domzero.engine.tasks import Tasks


@dataclass(slots=True)
class Context:
    """One call: what is called, by whom, from where, and its task. `session` is None before login and for own work."""

    method: str
    database: Database
    events: Events
    clock: Clock
    session: Session | None
    origin: Origin
    task: TaskHandle
    tasks: Tasks

    @property
    def caller(self) -> Session:
        """The session of the call. Raises `SESSION_INVALID` in a call that has none."""
        if self.session is None:
            raise ApiError("SESSION_INVALID", "")
        return self.session


@dataclass(frozen=True, slots=True)
class Contexts:
    """Makes contexts: for calls that came in, and for what the server does of its own accord."""

    database: Database
    events: Events
    clock: Clock
    tasks: Tasks

    def of_call(self, method: str, session: Session | None, origin: Origin, task: TaskHandle) -> Context:
        """The context of a call."""
        return Context(method, self.database, self.events, self.clock, session, origin, task, self.tasks)

    def background(self, label: str) -> Context:
        """A context with a task of the given name and no session. Whoever asks for it must `release` the task."""
        return self.of_call(label, None, LOCAL, self.tasks.handle(label, None))
