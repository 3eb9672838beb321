"""Events: what changed, told to clients that wait for it.

`event.from` answers from the state itself: the client's token is a generation of the database, the answer is what
changed since, each object at most once. Nothing can overflow; only a client whose token is older than the remembered
deletions, or not from this database, is told EVENTS_LOST and reads everything again. (Xen Orchestra does so on that
very code; XenCenter starts afresh on any error. Answering without the deletions, as the original does, would leave
dead objects in their caches.) A token from before a restart counts as too old for the same reason.

`event.register`, `event.next` and `event.unregister` are in `domzero.engine.classic_events`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from domzero.engine.changes import Change, Deletion, Operation
from domzero.engine.classic_events import EVENTS_KEPT, Event, EventQueue, Subscriber
from domzero.engine.clock import Clock, moment
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.row import Row
from domzero.engine.subscriptions import Filter, Interest, parse_all
from domzero.engine.waiting import Call, Deadlines, Waking
from domzero.idl.types import Ref

LONGEST_WAIT = 86_400.0
"""Seconds that a client may wait; a negative or larger timeout means this."""
HEARTBEAT_SECONDS = 30.0

_TOKEN = re.compile(r"([0-9]{1,20}),([0-9]{1,20})")


class Events:
    """The event calls over one database."""

    def __init__(self, database: Database, clock: Clock, *, events_kept: int = EVENTS_KEPT) -> None:
        self._database = database
        self._clock = clock
        self._tables = {table.lower: table for table in database.tables.by_class.values() if table.emits_events}
        self._queue = EventQueue(events_kept)
        self._waking = Waking()
        self._deadlines = Deadlines(clock)
        self._watching: Interest[Call] = Interest()
        self._filters: dict[Call, Filter] = {}
        database.subscribe(self._published)

    def register(self, session: Ref, classes: Sequence[str]) -> None:
        """Subscribe the session to classes and objects, beside those it has. Raises `ApiError`
        EVENT_SUBSCRIPTION_PARSE_FAILURE."""
        self._queue.register(session, parse_all(classes), self._database.generation)

    def unregister(self, session: Ref, classes: Sequence[str]) -> None:
        """End subscriptions of the session. When none is left, it is as if it had never registered."""
        ended = self._queue.unregister(session, parse_all(classes))
        if ended is not None:
            for call in ended.calls:
                call.fail(ApiError("SESSION_NOT_REGISTERED", session))

    async def next(self, session: Ref) -> list[dict[str, Any]]:
        """Wait for events that the session subscribed to and has not had yet; no two calls get the same one.

        Raises `ApiError` SESSION_NOT_REGISTERED, EVENTS_LOST when some were dropped because the session came too
        late, SESSION_INVALID when the session ends meanwhile.
        """
        subscriber = self._queue.find(session)
        if subscriber is None:
            raise ApiError("SESSION_NOT_REGISTERED", session)
        call = self._waking.enter(session)
        subscriber.calls[call] = None
        try:
            while True:
                found = self._take(subscriber)
                if found:
                    return [event.struct() for event in found]
                if not await call.wait():
                    return []
        finally:
            subscriber.calls.pop(call, None)
            self._waking.leave(call)

    def get_current_id(self) -> int:
        """The newest event id; those to come are greater."""
        return self._database.generation

    async def from_(self, session: Ref, classes: Sequence[str], token: str, timeout: float) -> dict[str, Any]:
        """Wait for changes since the token, at most `timeout` seconds; an empty token asks for everything there is.

        The answer is a struct of `events` in the order of their ids, `valid_ref_counts` (class → living objects) and
        the next `token`. Raises `ApiError` EVENT_FROM_TOKEN_PARSE_FAILURE, EVENT_SUBSCRIPTION_PARSE_FAILURE,
        EVENTS_LOST (read everything again), SESSION_INVALID when the session ends meanwhile.
        """
        wanted = Filter.parse(tuple(classes))
        since = self._parse_token(token)
        events = self._since(wanted, since)
        if timeout == 0 or (events and since == 0):
            return self._batch(wanted, events)
        call = self._waking.enter(session)
        self._filters[call] = wanted
        patience = timeout if 0 <= timeout <= LONGEST_WAIT else LONGEST_WAIT
        self._deadlines.add(call, self._clock.monotonic() + patience)
        try:
            if events:
                self._waking.soon((call,))
            else:
                self._watching.add(call, wanted.subjects)
            while True:
                woken = await call.wait()
                events = self._since(wanted, since)
                if events or not woken:
                    return self._batch(wanted, events)
                since = self._database.generation
                self._watching.add(call, wanted.subjects)
        finally:
            del self._filters[call]
            self._deadlines.drop(call)
            self._watching.remove(call, wanted.subjects)
            self._waking.leave(call)

    def inject(self, cls: str, ref: Ref) -> str:
        """Make the object count as modified. Whoever calls `from_` with the token waits for what comes after it.

        Raises `ApiError` HANDLE_INVALID when the class, in any case, has no such object.
        """
        name = next((name for name in self._database.tables.by_class if name.lower() == cls.lower()), None)
        if name is None:
            raise ApiError("HANDLE_INVALID", cls, ref)
        with self._database.transaction() as transaction:
            return make_token(transaction.touch(name, ref))

    def close(self) -> None:
        """The server stops: whoever waits, or comes to wait, is answered with what there is."""
        self._waking.close()

    def forget(self, session: Ref) -> None:
        """The session is gone: end its subscriptions, fail its waiting calls with SESSION_INVALID."""
        self._queue.forget(session)
        self._waking.end_session(session)

    async def heartbeat(self, cls: str, seconds: float = HEARTBEAT_SECONDS) -> None:
        """Until cancelled, now and then tell the subscribers of the older calls that the objects of a class changed,
        though they did not: so connections stay open and dead peers are noticed."""
        while True:
            await self._clock.sleep(seconds)
            for row in self._database.rows(cls).values():
                self._keep(row, Operation.MOD, self._database.changes.next())

    def _published(self, changes: Sequence[Change]) -> None:
        calls: dict[Call, None] = {}
        for change in changes:
            row = change.row
            table = self._database.tables.by_class[row.class_name]
            if not table.emits_events:
                continue
            for call in self._watching.concerned(table.lower, row.ref):
                # A call that is going to be woken need not hear of what happens until then.
                self._watching.remove(call, self._filters[call].subjects)
                calls[call] = None
            self._keep(row, change.operation, change.generation)
        self._waking.soon(calls)

    def _keep(self, row: Row, operation: Operation, id_: int) -> None:
        lower = self._database.tables.by_class[row.class_name].lower
        subscribers = self._queue.concerned(lower, row.ref)
        if subscribers:
            self._queue.add(self._event(row, operation, id_))
            self._waking.soon(call for subscriber in subscribers for call in subscriber.calls)

    def _event(self, row: Row, operation: Operation, id_: int) -> Event:
        record = None if operation is Operation.DEL else row.record
        return Event(id_, self._timestamp(), row.class_name.lower(), operation, row.ref, _uuid(row), record)

    def _timestamp(self) -> str:
        return moment(self._clock.now())

    def _take(self, subscriber: Subscriber) -> list[Event]:
        now = self._database.generation
        if subscriber.lost:
            subscriber.lost = False
            subscriber.seen = now
            raise ApiError("EVENTS_LOST")
        found = self._queue.take(subscriber, now)
        self._queue.trim()
        return found

    def _parse_token(self, token: str) -> int:
        if not token:
            return 0
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise ApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
        since = int(match.group(1))
        if since and not self._database.changes.floor <= since <= self._database.generation:
            raise ApiError("EVENTS_LOST")
        return since

    def _batch(self, wanted: Filter, events: list[Event]) -> dict[str, Any]:
        return {
            "events": [event.struct() for event in events],
            "valid_ref_counts": {lower: len(t.rows) for lower, t in self._tables.items() if wanted.names(lower)},
            "token": make_token(self._database.generation),
        }

    def _since(self, wanted: Filter, since: int) -> list[Event]:
        """What changed after that generation, each object once, in the order of their last changes."""
        timestamp = self._timestamp()
        gone = {} if since == 0 else self._gone(wanted, since)
        events = []
        for row in self._changed(wanted, since):
            record, lower = row.record, row.class_name.lower()
            known = row.created <= since or gone.pop((lower, row.ref), None) is not None
            operation = Operation.MOD if known else Operation.ADD
            events.append(Event(row.generation, timestamp, lower, operation, row.ref, _uuid(row), record))
        for (lower, ref), deletion in gone.items():
            event = Event(deletion.generation, timestamp, lower, Operation.DEL, ref, deletion.uuid, None)
            events.append(event)
        events.sort(key=lambda event: event.id)
        return events

    def _changed(self, wanted: Filter, since: int) -> Iterator[Row]:
        if since == 0 and not wanted.everything:
            for lower, table in self._tables.items():
                if wanted.names(lower):
                    yield from (row for row in table.rows.values() if wanted.matches(lower, row.ref))
            return
        for row in self._database.changes.changed_since(since):
            if wanted.matches(row.class_name.lower(), row.ref):
                yield row

    def _gone(self, wanted: Filter, since: int) -> dict[tuple[str, Ref], Deletion]:
        """The newest deletion of each object that is wanted and was there at that generation."""
        gone: dict[tuple[str, Ref], Deletion] = {}
        for deletion in self._database.changes.deleted_since(since):
            lower = deletion.class_name.lower()
            if wanted.matches(lower, deletion.ref):
                newest = gone.get((lower, deletion.ref), deletion)
                gone[lower, deletion.ref] = newest._replace(created=min(newest.created, deletion.created))
        return {key: deletion for key, deletion in gone.items() if deletion.created <= since}


def make_token(generation: int) -> str:
    """A generation as clients know it: two numbers, so that tokens sort as text; the second is always 0 here."""
    return f"{generation:020d},{0:020d}"


def _uuid(row: Row) -> str:
    return str(row.record.get("uuid", ""))
