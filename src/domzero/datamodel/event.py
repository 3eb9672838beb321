"""The event class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Durability, Enum, Field, Message, Param
from domzero.idl.types import (
    ANY_RECORD,
    DATETIME,
    EVENT_BATCH,
    FLOAT,
    INT,
    STRING,
    STRING_SET,
    VOID,
    EnumOf,
    RecordOf,
    SetOf,
)

CLASS = Class(
    "event",
    "Notification that an object was created, changed or deleted.",
    "rio",
    fields=(
        Field("snapshot", ANY_RECORD, RUNTIME, "boston",
            "Full record of the object as it was when the event was made; missing for deletions."),
        Field("id", INT, CONSTRUCTOR, "rio",
            "Ever-increasing number giving the order of events."),
        Field("timestamp", DATETIME, CONSTRUCTOR, "rio",
            "When the change happened.", deprecated="boston"),
        Field("class", STRING, CONSTRUCTOR, "rio",
            "Class of the object concerned, always in lower case."),
        Field("operation", EnumOf("event_operation"), CONSTRUCTOR, "rio",
            "Whether the object appeared, changed or went away."),
        Field("ref", STRING, CONSTRUCTOR, "rio",
            "Reference of the object concerned."),
        Field("obj_uuid", STRING, CONSTRUCTOR, "rio",
            "UUID of the object concerned; deprecated, so prefer the reference.", deprecated="boston"),
    ),
    messages=(
        Message("inject",
            (
                Param("class", STRING, "Class of the object to mark."),
                Param("ref", STRING, "Reference of the object to mark."),
            ), STRING, "tampa",
            "Marks an object as changed and returns a token, so that a watcher can wait until its event stream "
            "passes this point.", least_role="read-only", asynchronous=False),
        Message("get_current_id", (), INT, "rio",
            "Returns the number of the latest event, used with the older register and next calls.",
            least_role="read-only", asynchronous=False),
        Message("from",
            (
                Param("classes", STRING_SET,
                      "What to watch: an asterisk for everything, a class name, or a class and reference separated "
                      "by a slash."),
                Param("token", STRING, "Token from the previous reply, or an empty string on the first call."),
                Param("timeout", FLOAT,
                      "Longest time to wait, in seconds; when it passes, an empty batch and a token are returned."),
            ), EVENT_BATCH, "boston",
            "Waits for changes since the token and returns at most one event per object with a new token; an empty "
            "token yields everything as additions.",
            errors=("EVENTS_LOST", "SESSION_NOT_REGISTERED",), least_role="read-only", asynchronous=False),
        Message("next", (), SetOf(RecordOf("event")), "rio",
            "Blocks without limit until an event for a registered class arrives; fails when not registered, or with "
            "EVENTS_LOST after falling too far behind.",
            errors=("EVENTS_LOST", "SESSION_NOT_REGISTERED",), least_role="read-only", deprecated="boston",
            asynchronous=False),
        Message("unregister",
            (
                Param("classes", STRING_SET, "Class names to stop watching, as they were registered."),
            ), VOID, "rio",
            "Stops this session's older-style subscription to some classes.",
            least_role="read-only", deprecated="boston", asynchronous=False),
        Message("register",
            (
                Param("classes", STRING_SET, "Class names in any letter case, or an asterisk for all."),
            ), VOID, "rio",
            "Subscribes this session to events of some classes, to be read with next; repeated calls add to the "
            "list.", least_role="read-only", deprecated="boston", asynchronous=False),
    ),
    enums=(
        Enum("event_operation",
            "What happened to the object.",
            {
                "add": "The object was created.",
                "del": "The object was deleted; no snapshot is supplied.",
                "mod": "At least one field of the object changed.",
            }),
    ),
    durability=Durability.NONE,
    has_getters=False,
    has_get_all=False,
    emits_events=False,
)
