"""The older event calls: a session subscribes, and every event since its last `event.next` is kept for it.

Events are kept once for all sessions, until every subscriber has had them or there are too many. Only a subscriber who
really missed something that it asked for is told EVENTS_LOST.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from domzero.engine.changes import Operation
from domzero.engine.subscriptions import MOST, Interest, Subject, covering, too_many
from domzero.engine.waiting import Call
from domzero.idl.records import Record
from domzero.idl.types import Ref

EVENTS_KEPT = 5_000
"""Events kept for slow subscribers. Each holds a version of an object, some with its encoded forms."""
SIZE_KEPT = 64 << 20
"""About how many bytes of objects' versions they hold, whatever clients put into their objects."""


class Event(NamedTuple):
    """One event as both families of calls report it."""

    id: int
    timestamp: str
    lower: str
    operation: Operation
    ref: Ref
    uuid: str
    snapshot: Record | None

    def struct(self) -> dict[str, Any]:
        """The struct on the wire; deletions have no snapshot."""
        struct = {
            "id": self.id,
            "timestamp": self.timestamp,
            "class": self.lower,
            "operation": self.operation.value,
            "ref": self.ref,
            "obj_uuid": self.uuid,
        }
        if self.snapshot is not None:
            struct["snapshot"] = self.snapshot
        return struct

    @property
    def size(self) -> int:
        """About how many bytes the object's version takes."""
        return 0 if self.snapshot is None else _size(self.snapshot.values_)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return _size(tuple(value)) + _size(tuple(value.values()))
    if not isinstance(value, tuple) or not value:
        return 8
    alike = set(map(type, value)) == {str}
    return 16 * len(value) + sum(map(len if alike else _size, value))


class Subscriber:
    """A session that registered. `seen` is the last event id it was asked about, `calls` its waiting calls."""

    __slots__ = ("calls", "lost", "seen", "since")

    def __init__(self, seen: int) -> None:
        self.seen = seen
        self.since: dict[Subject, int] = {}
        """What it asked for, and the newest event id at that time: earlier events are none of its business."""
        self.lost = False
        self.calls: dict[Call, None] = {}

    def wants(self, event: Event) -> bool:
        """Whether the event is asked for and not yet reported."""
        if event.id <= self.seen:
            return False
        return any(event.id > self.since.get(subject, event.id) for subject in covering(event.lower, event.ref))


class EventQueue:
    """All subscribers of the older calls and the events kept for them."""

    def __init__(self, kept: int = EVENTS_KEPT) -> None:
        self._kept = kept
        self._events: deque[Event] = deque()
        self._sizes: deque[int] = deque()
        self._size = 0
        self._subscribers: dict[Ref, Subscriber] = {}
        self._interest: Interest[Subscriber] = Interest()

    def find(self, session: Ref) -> Subscriber | None:
        """The session's subscription, if it has one."""
        return self._subscribers.get(session)

    def register(self, session: Ref, subjects: list[Subject], now: int) -> None:
        """Add to the session's subscription, making one if there is none; `now` is the newest event id.

        Raises `ApiError` EVENT_SUBSCRIPTION_PARSE_FAILURE when that would be too many.
        """
        subscriber = self._subscribers.get(session) or Subscriber(now)
        wanted = len(subscriber.since.keys() | subjects)
        if wanted > MOST:
            raise too_many(wanted)
        self._subscribers[session] = subscriber
        for subject in subjects:
            subscriber.since.setdefault(subject, now)
        self._interest.add(subscriber, subjects)

    def unregister(self, session: Ref, subjects: list[Subject]) -> Subscriber | None:
        """Take away from the session's subscription. Gives the subscriber that ended because nothing is left of it."""
        subscriber = self._subscribers.get(session)
        if subscriber is None:
            return None
        had = bool(subscriber.since)
        for subject in subjects:
            subscriber.since.pop(subject, None)
        self._interest.remove(subscriber, subjects)
        if subscriber.since or not had:
            return None
        del self._subscribers[session]
        self.trim()
        return subscriber

    def forget(self, session: Ref) -> None:
        """The session is gone."""
        subscriber = self._subscribers.pop(session, None)
        if subscriber is not None:
            self._interest.remove(subscriber, subscriber.since)
            self.trim()

    def concerned(self, lower: str, ref: Ref) -> list[Subscriber]:
        """Who asked for events on that object."""
        return self._interest.concerned(lower, ref)

    def add(self, event: Event) -> None:
        """Keep an event that somebody asked for."""
        self._events.append(event)
        self._sizes.append(size := event.size)
        self._size += size
        while len(self._events) > self._kept or (self._size > SIZE_KEPT and len(self._events) > 1):
            lost = self._drop_oldest()
            for subscriber in self._interest.concerned(lost.lower, lost.ref):
                subscriber.lost = subscriber.lost or subscriber.wants(lost)

    def take(self, subscriber: Subscriber, now: int) -> list[Event]:
        """The subscriber's new events, oldest first; they count as seen."""
        found = []
        for event in reversed(self._events):
            if event.id <= subscriber.seen:
                break
            if subscriber.wants(event):
                found.append(event)
        subscriber.seen = now
        return found[::-1]

    def trim(self) -> None:
        """Drop the events that every subscriber has seen."""
        seen = min((subscriber.seen for subscriber in self._subscribers.values() if subscriber.since), default=None)
        while self._events and (seen is None or self._events[0].id <= seen):
            self._drop_oldest()

    def _drop_oldest(self) -> Event:
        self._size -= self._sizes.popleft()
        return self._events.popleft()
