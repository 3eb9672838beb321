"""Tasks: what runs on behalf of whom, how far it is, how it ended, and how it is stopped.

The asyncio tasks that do the work are held here until they end, so that none is lost to the garbage collector.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from domzero.engine.clock import Clock, moment
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.sessions import Session
from domzero.engine.task_handle import TaskHandle
from domzero.engine.task_reaping import UNFINISHED, outlived
from domzero.engine.transactions import Transaction
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import NEVER, NULL_REF, VOID, Ref, Type

TASK_LIMIT = 200
PENDING_LIMIT = 2_000
"""Unfinished tasks beyond which no further one is accepted."""
CLIENT_LIMIT = 500
"""Unfinished tasks that the clients of one account run themselves; so the others are left for everybody's work."""

RESTARTED = ("INTERNAL_ERROR", "The server restarted before the task had ended.")

Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose task it is. `who` is the account: its security identifier, or its name."""

    session: Ref
    who: str


class Tasks:
    """All tasks of this host.

    `encode_value` gives the XML-RPC text (`<value>…</value>`) of a result; `this_host` the host that runs the tasks.
    """

    def __init__(
        self, database: Database, clock: Clock, *, this_host: Callable[[], Ref],
        encode_value: Callable[[Type, Any], str], limit: int = TASK_LIMIT, pending_limit: int = PENDING_LIMIT,
    ) -> None:  # fmt: skip
        self._database = database
        self._clock = clock
        self._this_host = this_host
        self._encode_value = encode_value
        self._limit = limit
        self.pending_limit = pending_limit
        self._stored_since_sweep = 0
        self._work: set[asyncio.Task[Any]] = set()
        self._owners: dict[Ref, Owner] = {}
        self._run_by_clients: set[Ref] = set()
        self.running: dict[Ref, TaskHandle] = {}

    def recover(self) -> None:
        """Settle what an earlier run left: its unfinished tasks failed, and no object is busy with them any more."""
        database = self._database
        with database.transaction() as transaction:
            for ref, row in list(database.rows("task").items()):
                if row.record["status"] in UNFINISHED:
                    self._end(transaction, ref, "failure", error_info=RESTARTED)
            for name, cls in database.graph.classes.items():
                if any(field.name == "current_operations" for field in cls.fields) and name in database.layouts:
                    for ref, row in list(database.rows(name).items()):
                        if row.record["current_operations"]:
                            transaction.update(name, ref, current_operations=EMPTY_MAP)
            for session, row in database.rows("session").items():
                for ref in row.record["tasks"]:
                    self._owners[ref] = Owner(session, _who(row.record["auth_user_sid"], row.record["auth_user_name"]))

    # Making and ending task objects

    def handle(self, label: str, session: Session | None) -> TaskHandle:
        """The task of a new call; nothing is stored yet."""
        return TaskHandle(self, label, session)

    def adopt(self, ref: Ref, session: Session | None) -> TaskHandle:
        """A handle of a task that a client made, for work that shall complete it.

        Raises `HANDLE_INVALID`, `TASK_CANCELLED` when it was cancelled before, `OPERATION_NOT_ALLOWED` when in use.
        """
        record = self._database.record("task", ref)
        if record["status"] == "cancelling":
            self._run_by_clients.discard(ref)
            with self._database.transaction() as transaction:
                self._end(transaction, ref, "cancelled", error_info=("TASK_CANCELLED", ref))
            raise ApiError("TASK_CANCELLED", ref)
        if record["status"] != "pending" or ref in self.running:
            raise ApiError("OPERATION_NOT_ALLOWED", "The task is not free for another operation.")
        handle = TaskHandle(self, record["name_label"], session)
        handle.bind(ref)
        self._run_by_clients.discard(ref)
        return handle

    def store(
        self,
        label: str,
        description: str,
        session: Session | None,
        parent: Ref = NULL_REF,
        *,
        run_by_client: bool = False,
    ) -> Ref:
        """A new pending task object, for work of the server or of a client.

        Raises `TOO_MANY_PENDING_TASKS`, `HANDLE_INVALID` for a parent that does not exist.
        """
        if parent != NULL_REF:
            self._database.row("task", parent)
        if len(self._owners) >= self.pending_limit and self._unfinished() >= self.pending_limit:
            raise ApiError("TOO_MANY_PENDING_TASKS")
        if run_by_client and session is not None and self._run_by(session) >= CLIENT_LIMIT:
            raise ApiError("TOO_MANY_PENDING_TASKS")
        self._stored_since_sweep += 1
        if self._stored_since_sweep >= self._limit:
            self.sweep()
        with self._database.transaction() as transaction:
            ref = transaction.create(
                "task",
                {
                    "name_label": label,
                    "name_description": description,
                    "allowed_operations": ("cancel", "destroy") if run_by_client else ("destroy",),
                    "created": moment(self._clock.now()),
                    "finished": NEVER,
                    "status": "pending",
                    "resident_on": self._this_host(),
                    "type": "<none/>",
                    "subtask_of": parent,
                },
            )
            if session is not None and not session.emergency:
                stored = self._database.find("session", session.ref)
                if stored is not None:
                    transaction.update("session", session.ref, tasks=(*stored.record["tasks"], ref))
        if run_by_client:
            self._run_by_clients.add(ref)
        if session is not None:
            self._owners[ref] = Owner(session.ref, _who(session.account.sid, session.account.name))
        else:
            self._owners[ref] = Owner(NULL_REF, "")
        return ref

    def remove(self, ref: Ref) -> None:
        """Forget a task object; its work, if any, goes on without one. None is no error."""
        self.running.pop(ref, None)
        self._run_by_clients.discard(ref)
        owner = self._owners.pop(ref, None)
        if self._database.find("task", ref) is None:
            return
        with self._database.transaction() as transaction:
            transaction.destroy("task", ref)
            session = None if owner is None else self._database.find("session", owner.session)
            if session is not None and ref in session.record["tasks"]:
                left = tuple(task for task in session.record["tasks"] if task != ref)
                transaction.update("session", session.ref, tasks=left)

    def finish(self, ref: Ref, status: str, *, result: str = "", error_info: tuple[str, ...] = ()) -> None:
        """Record how a task ended; one that somebody wanted destroyed goes away instead."""
        self.running.pop(ref, None)
        row = self._database.find("task", ref)
        if row is None:
            return
        if "destroy" in row.record["current_operations"].values():
            self.remove(ref)
            return
        with self._database.transaction() as transaction:
            self._end(transaction, ref, status, result=result, error_info=error_info)

    def _end(
        self, transaction: Transaction, ref: Ref, status: str, *, result: str = "", error_info: tuple[str, ...] = ()
    ) -> None:
        changes: dict[str, Any] = {"progress": 1.0} if status == "success" else {}
        transaction.update(
            "task", ref, status=status, result=result, error_info=error_info, finished=moment(self._clock.now()),
            allowed_operations=("destroy",), current_operations=EMPTY_MAP, **changes,
        )  # fmt: skip

    # Doing the work

    def start(self, handle: TaskHandle, work: Coroutine[Any, Any, Any], type_: Type) -> None:
        """Do the work in the background and record on the task how it ended. The task object exists on return."""
        try:
            handle.ref  # noqa: B018 - stored before the work can look for it
        except ApiError:
            work.close()
            raise
        self._spawn(handle, self._recorded(handle, work, type_))

    async def carry_out(self, handle: TaskHandle, work: Coroutine[Any, Any, Result], type_: Type) -> Result:
        """Do the work, record on the task how it ended, and pass on its value or `ApiError`.

        Being cancelled cancels the work and waits for its end.
        """
        outcome: list[Result | ApiError] = []
        try:
            handle.ref  # noqa: B018 - stored before the work can look for it
        except ApiError:
            work.close()
            raise
        runner = self._spawn(handle, self._recorded(handle, work, type_, outcome.append))
        try:
            await asyncio.wait({runner})
        except asyncio.CancelledError:
            handle.cancel()
            await asyncio.wait({runner})
            raise
        runner.result()
        if isinstance(outcome[0], ApiError):
            raise outcome[0]
        return outcome[0]

    async def call(self, handle: TaskHandle, work: Coroutine[Any, Any, Result]) -> Result:
        """Do the work of a synchronous call; it goes on to its end although the caller may be cancelled.

        The task object, if the call needed one, goes away with the call.
        """
        return await asyncio.shield(self._spawn(handle, self._released(handle, work)))

    def release(self, handle: TaskHandle) -> None:
        """The call is over: forget the task object if there was need for one."""
        if handle.stored:
            self.remove(handle.ref)

    async def stop(self, patience: float) -> None:
        """Wait some seconds for running work, then cancel what is left and wait for its end."""
        if self._work:
            waiting = asyncio.ensure_future(asyncio.wait(set(self._work)))
            timer = asyncio.ensure_future(self._clock.sleep(patience))
            await asyncio.wait((waiting, timer), return_when=asyncio.FIRST_COMPLETED)
            timer.cancel()
            waiting.cancel()
        left = set(self._work)
        for runner in left:
            runner.cancel()
        if left:
            await asyncio.wait(left)

    def _spawn(self, handle: TaskHandle, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        runner = asyncio.get_running_loop().create_task(work, name=handle.label)
        self._work.add(runner)
        runner.add_done_callback(self._work.discard)
        handle.runner = runner
        session = handle.session
        if session is not None:
            session.busy += 1
            runner.add_done_callback(lambda _: self._idle(session))
        return runner

    def _idle(self, session: Session) -> None:
        session.busy -= 1
        session.last_active = self._clock.monotonic()

    async def _released(self, handle: TaskHandle, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await self._stoppable(handle, work)
        finally:
            self.release(handle)

    async def _recorded(
        self, handle: TaskHandle, work: Coroutine[Any, Any, Any], type_: Type,
        tell: Callable[[Any], None] = lambda _: None,
    ) -> None:  # fmt: skip
        ref = handle.ref
        try:
            value = await self._stoppable(handle, work)
            result = "" if type_ == VOID or value is None else self._encode_value(type_, value)
        except ApiError as error:
            self.finish(ref, "cancelled" if handle.cancel_requested else "failure", error_info=error.description)
            tell(error)
        except Exception as problem:
            log.exception("%s failed in a way that it should not", handle.label)
            failure = ApiError("INTERNAL_ERROR", one_line(problem))
            self.finish(ref, "failure", error_info=failure.description)
            tell(failure)
        else:
            self.finish(ref, "success", result=result)
            tell(value)

    async def _stoppable(self, handle: TaskHandle, work: Coroutine[Any, Any, Result]) -> Result:
        """Turns the cancellation that `task.cancel` asked for into `TASK_CANCELLED`; any other one passes."""
        try:
            return await work
        except asyncio.CancelledError:
            runner = asyncio.current_task()
            if not handle.cancel_requested or runner is None:
                raise
            runner.uncancel()
            raise ApiError("TASK_CANCELLED", handle.ref) from None

    # Requests about tasks

    def cancel(self, ref: Ref) -> None:
        """Ask a task to stop. Raises `HANDLE_INVALID`, and `OPERATION_NOT_ALLOWED` when it cannot be stopped."""
        record = self._database.record("task", ref)
        handle = self.running.get(ref)
        if record["status"] not in UNFINISHED or (handle is not None and not handle.is_cancellable):
            raise ApiError("OPERATION_NOT_ALLOWED", "The task cannot be cancelled.")
        with self._database.transaction() as transaction:
            operations = {**record["current_operations"], ref: "cancel"}
            transaction.update("task", ref, status="cancelling", current_operations=operations)
        if handle is not None and not handle.cancel_requested:
            handle.cancel()

    def destroy(self, ref: Ref) -> None:
        """Remove a task object, or have it go away once its work ends. Raises `HANDLE_INVALID`."""
        record = self._database.record("task", ref)
        if ref not in self.running:
            self.remove(ref)
            return
        with self._database.transaction() as transaction:
            transaction.update("task", ref, current_operations={**record["current_operations"], ref: "destroy"})

    def is_waiting(self, ref: Ref) -> bool:
        """Whether the task exists and waits for work to complete it."""
        row = self._database.find("task", ref)
        return row is not None and row.record["status"] == "pending" and ref not in self.running

    def is_run_by_client(self, ref: Ref) -> bool:
        """Whether a client made the task and none of the server's work has completed it, or is about to."""
        return ref in self._run_by_clients

    def is_of(self, ref: Ref, session: Session) -> bool:
        """Whether the task was started by that session, or by another of the same account."""
        owner = self._owners.get(ref)
        who = _who(session.account.sid, session.account.name)
        return owner is not None and (owner.session == session.ref or (owner.who == who and who != ""))

    def is_of_another(self, ref: Ref, session: Session) -> bool:
        """Whether there is such a task, and it is not the session's as `is_of` says."""
        return ref in self._owners and not self.is_of(ref, session)

    def set_progress(self, ref: Ref, fraction: float) -> None:
        """Record how far a task is; what is outside 0 to 1 is taken as the nearer end."""
        if self._database.find("task", ref) is not None:
            with self._database.transaction(observed=True) as transaction:
                transaction.update("task", ref, progress=min(1.0, max(0.0, fraction)))

    def show_cancellable(self, handle: TaskHandle) -> None:
        """Let the task object say whether it can be cancelled now."""
        if not handle.stored:
            return
        row = self._database.find("task", handle.ref)
        allowed = ("cancel", "destroy") if handle.is_cancellable else ("destroy",)
        if row is not None and row.record["status"] == "pending" and row.record["allowed_operations"] != allowed:
            with self._database.transaction() as transaction:
                transaction.update("task", row.ref, allowed_operations=allowed)

    def sweep(self) -> None:
        """Remove old finished tasks, abandoned unfinished ones, and the oldest finished ones beyond the limit."""
        self._stored_since_sweep = 0
        rows = self._database.rows("task")
        # A disk that refuses a task takes it back, which is no removal that passes here.
        self._owners = {ref: owner for ref, owner in self._owners.items() if ref in rows}
        self._run_by_clients &= rows.keys()
        if gone := outlived(rows, self.running, self._clock.now(), self._limit):
            with self._database.transaction():
                for ref in gone:
                    self.remove(ref)

    def _run_by(self, session: Session) -> int:
        """How many unfinished tasks the clients of the session's account run; 0 where it does not matter yet."""
        if len(self._run_by_clients) < CLIENT_LIMIT:
            return 0
        found = (self._database.find("task", ref) for ref in self._run_by_clients if self.is_of(ref, session))
        return sum(row is not None and row.record["status"] in UNFINISHED for row in found)

    def _unfinished(self) -> int:
        return sum(row.record["status"] in UNFINISHED for row in self._database.rows("task").values())


def _who(sid: str, name: str) -> str:
    return sid or name


def one_line(problem: BaseException) -> str:
    """An unexpected exception in one line, for `INTERNAL_ERROR`."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:500]
