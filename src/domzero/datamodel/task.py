"""The task class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import (
    DATETIME,
    FLOAT,
    NULL_REF,
    STRING,
    STRING_MAP,
    STRING_SET,
    VOID,
    EnumOf,
    MapOf,
    RefTo,
    SetOf,
)

CLASS = Class(
    "task",
    "Progress and outcome of an operation running, or recently run, on the server.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RUNTIME, "rio",
            "What is being done; asynchronous calls show the name of the call.", default=""),
        Field("name_description", STRING, RUNTIME, "rio",
            "Longer explanation of the work, if there is one.", default=""),
        Field("allowed_operations", SetOf(EnumOf("task_allowed_operations")), RUNTIME, "rio",
            "What may be done to the task now; no cancel entry means it cannot be interrupted.", default=()),
        Field("current_operations", MapOf(STRING, EnumOf("task_allowed_operations")), RUNTIME, "rio",
            "Requests already being acted on for this task, keyed by the requesting task.", default=EMPTY_MAP),
        Field("created", DATETIME, RUNTIME, "rio",
            "When the task started."),
        Field("finished", DATETIME, RUNTIME, "rio",
            "When the task ended; not meaningful while it is pending."),
        Field("status", EnumOf("task_status_type"), RUNTIME, "rio",
            "Whether the task is still running, and if not, how it ended."),
        Field("resident_on", RefTo("host"), RUNTIME, "rio",
            "The host doing the work."),
        Field("progress", FLOAT, RUNTIME, "rio",
            "Estimated fraction completed, from 0 to 1; it moves in coarse steps.", volatile=True),
        Field("type", STRING, RUNTIME, "rio",
            "Kind of result the task will yield; usually a placeholder meaning none."),
        Field("result", STRING, RUNTIME, "rio",
            "Return value of a successful call, encoded as XML-RPC text; empty for calls that return nothing."),
        Field("error_info", STRING_SET, RUNTIME, "rio",
            "Error code followed by its parameters when the task failed, otherwise empty."),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free key/value pairs, often used by clients to note what the task applies to.",
            default=EMPTY_MAP, setter_role="pool-operator"),
        Field("subtask_of", RefTo("task"), RUNTIME, "orlando",
            "The larger task this one is a step of, or null.", default=NULL_REF),
        Field("subtasks", SetOf(RefTo("task")), RUNTIME, "orlando",
            "Smaller tasks working on behalf of this one.", inverse="task.subtask_of"),
        Field("backtrace", STRING, RUNTIME, "dundee",
            "Internal trace of where a failure arose, useful in bug reports.", default="()"),
    ),
    messages=(
        Message("set_error_info",
            (
                Param("self", RefTo("task"), "The task to act on."),
                Param("value", STRING_SET, "Error code first, then its parameters."),
            ), VOID, "21.3.0",
            "Records an error on a task the client itself is running.", least_role="read-only", asynchronous=False),
        Message("set_result",
            (
                Param("self", RefTo("task"), "The task to act on."),
                Param("value", STRING, "Text to store as the result."),
            ), VOID, "21.3.0",
            "Records the outcome value of a task the client itself is running.",
            least_role="read-only", asynchronous=False),
        Message("set_progress",
            (
                Param("self", RefTo("task"), "The task to act on."),
                Param("value", FLOAT, "Completed fraction between 0 and 1."),
            ), VOID, "stockholm",
            "Updates how far a client-run task has come.", least_role="read-only", asynchronous=False),
        Message("set_status",
            (
                Param("self", RefTo("task"), "The task to act on."),
                Param("value", EnumOf("task_status_type"), "The new state."),
            ), VOID, "falcon",
            "Changes the state of a client-run task, for instance to mark it finished.",
            least_role="read-only", asynchronous=False),
        Message("cancel",
            (
                Param("task", RefTo("task"), "The task to act on."),
            ), VOID, "rio",
            "Asks the task to stop; it ends as cancelled once the work notices, and some tasks refuse with "
            "OPERATION_NOT_ALLOWED.", errors=("OPERATION_NOT_ALLOWED",), least_role="read-only"),
        Message("destroy",
            (
                Param("self", RefTo("task"), "The task to act on."),
            ), VOID, "rio",
            "Deletes the task record; if the work is still going on, the record goes away when it finishes.",
            least_role="read-only", asynchronous=False),
        Message("create",
            (
                Param("label", STRING, "Short name to show for the task."),
                Param("description", STRING, "Longer text about the work."),
            ), RefTo("task"), "rio",
            "Creates a pending task for the client to track its own work or an HTTP transfer; destroy it "
            "afterwards.", least_role="read-only", asynchronous=False),
    ),
    enums=(
        Enum("task_allowed_operations",
            "Things that can be done to a task.",
            {
                "cancel": "The task can be asked to stop early.",
                "destroy": "The task record can be deleted.",
            }),
        Enum("task_status_type",
            "States a task passes through.",
            {
                "pending": "Still running, or waiting to run.",
                "success": "Completed, with any return value in the result.",
                "failure": "Ended with an error, given in error_info.",
                "cancelling": "A stop was requested and the work has not yet reacted.",
                "cancelled": "Stopped on request before completing.",
            }),
    ),
    has_get_by_name_label=True,
)
