"""The messages of the task class. Everybody may deal with their own tasks, those who run the pool with all."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.engine.binding import implements
from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.task_reaping import UNFINISHED
from domzero.engine.tasks import Tasks
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import Ref

LONGEST_TEXT = 64 << 10
"""Characters of what a client says about its task at once: everybody may make tasks, and they take room."""
TASKS_OF_OTHERS = "pool-operator"
"""The least role that may change other people's tasks."""


@dataclass(frozen=True, slots=True)
class TaskDesk:
    """What messages about tasks work with; `rank_for_others` is the least rank to touch other people's tasks."""

    tasks: Tasks
    rank_for_others: int


@implements("task.create")
def create(desk: TaskDesk, context: Context, label: str, description: str) -> Ref:
    """A pending task that the client completes itself or gives to a transfer.

    Raises `TOO_MANY_PENDING_TASKS`, and `INVALID_VALUE` for texts that are far too long.
    """
    _assert_short("label", label, description)
    return desk.tasks.store(label, description, context.caller, run_by_client=True)


@implements("task.destroy")
def destroy(desk: TaskDesk, context: Context, self: Ref) -> None:
    """Remove a task, or have it go once its work ends. Raises `HANDLE_INVALID`, `RBAC_PERMISSION_DENIED`."""
    _assert_may_change(desk, context, self)
    desk.tasks.destroy(self)


@implements("task.cancel")
def cancel(desk: TaskDesk, context: Context, task: Ref) -> None:
    """Ask a task to stop. Raises `HANDLE_INVALID`, `RBAC_PERMISSION_DENIED`, `OPERATION_NOT_ALLOWED`."""
    _assert_may_change(desk, context, task)
    desk.tasks.cancel(task)


@implements("task.set_status")
def set_status(desk: TaskDesk, context: Context, self: Ref, value: str) -> None:
    """Set the status of a client's own task. A status only goes forward: what has ended stays as it ended.

    Setting what it is already changes nothing. Raises `HANDLE_INVALID`, `OPERATION_NOT_ALLOWED`.
    """
    _assert_run_by_client(desk, context, self)
    record = context.database.record("task", self)
    if record["status"] == value:
        return
    if not is_forward(record["status"], value):
        raise ApiError("OPERATION_NOT_ALLOWED", f"The task's status is {record['status']} and cannot become {value}.")
    if value in UNFINISHED:
        with context.database.transaction() as transaction:
            transaction.update("task", self, status=value)
    elif "destroy" in record["current_operations"].values():
        desk.tasks.remove(self)
    else:
        with context.database.transaction() as transaction:
            transaction.update(
                "task", self, status=value, finished=moment(context.clock.now()),
                allowed_operations=("destroy",), current_operations=EMPTY_MAP,
            )  # fmt: skip


def is_forward(before: str, after: str) -> bool:
    """Whether a task of one status may take the other next: pending, then cancelling, then one of the ends."""
    return before in UNFINISHED and (before, after) != ("cancelling", "pending")


@implements("task.set_progress")
def set_progress(desk: TaskDesk, context: Context, self: Ref, value: float) -> None:
    """Set the progress of a client's own task. Raises `HANDLE_INVALID`, `OPERATION_NOT_ALLOWED`."""
    _assert_run_by_client(desk, context, self)
    desk.tasks.set_progress(self, value)


@implements("task.set_result")
def set_result(desk: TaskDesk, context: Context, self: Ref, value: str) -> None:
    """Set the result of a client's own task, also of one that has ended.

    Raises `HANDLE_INVALID`, `OPERATION_NOT_ALLOWED`, `INVALID_VALUE` for a text that is far too long.
    """
    _assert_run_by_client(desk, context, self)
    _assert_short("result", value)
    with context.database.transaction() as transaction:
        transaction.update("task", self, result=value)


@implements("task.set_error_info")
def set_error_info(desk: TaskDesk, context: Context, self: Ref, value: tuple[str, ...]) -> None:
    """Set the error of a client's own task, also of one that has ended.

    Raises `HANDLE_INVALID`, `OPERATION_NOT_ALLOWED`, `INVALID_VALUE` for texts that are far too long.
    """
    _assert_run_by_client(desk, context, self)
    _assert_short("error_info", *value)
    with context.database.transaction() as transaction:
        transaction.update("task", self, error_info=value)


def _assert_may_change(desk: TaskDesk, context: Context, ref: Ref) -> None:
    context.database.row("task", ref)
    caller = context.caller
    if caller.rank < desk.rank_for_others and not desk.tasks.is_of(ref, caller):
        raise ApiError("RBAC_PERMISSION_DENIED", context.method.lower(), "The task belongs to another account.")


def _assert_short(field: str, *texts: str) -> None:
    size = len(texts) + sum(map(len, texts))
    if size > LONGEST_TEXT:
        raise ApiError("INVALID_VALUE", field, f"{size} characters; there may be {LONGEST_TEXT}")


def _assert_run_by_client(desk: TaskDesk, context: Context, ref: Ref) -> None:
    _assert_may_change(desk, context, ref)
    if not desk.tasks.is_run_by_client(ref):
        raise ApiError("OPERATION_NOT_ALLOWED", "The server runs this task.")
