"""Sessions: who is logged in, with which rank, and for how long still.

A session is a durable object (a restart logs nobody out) with a shadow in memory that every call looks at: its rank and
when it was last used. The stored `last_active` follows the shadow at a distance of minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from domzero.engine.calls import Origin
from domzero.engine.changes import Change
from domzero.engine.clock import Clock, moment
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.roles import NO_RANK, Roles
from domzero.idl.types import NEVER, NULL_REF, Ref

SESSION_LIMIT = 200
IDLE_LIMIT = 86_400.0
"""Seconds after its last call at which a session ends."""
WRITTEN_EVERY = 600.0
"""Seconds by which the stored `last_active` may lag behind."""
LENT = "lent"
"""Key in the `other_config` of sessions that do not outlive the run that opened them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who proved who they are. `rank` is that of the highest role."""

    name: str
    rank: int
    superuser: bool = False
    user: Ref = NULL_REF
    subject: Ref = NULL_REF
    sid: str = ""


@dataclass(slots=True, eq=False)
class Session:
    """The shadow of a session object. `busy` counts its calls and tasks that run now; `last_active` is monotonic.

    A `lent` one is good only for calls over the Unix socket.
    """

    ref: Ref
    account: Account
    rank: int
    last_active: float
    originator: str = ""
    emergency: bool = False
    lent: bool = False
    busy: int = 0
    written: float = 0.0


class Sessions:
    """All sessions of this host. `restore` must be called once before any call is served.

    `this_host` gives the reference of the host that accepts logins; `ended` is called with the reference of every
    session that ends, so that others forget it too.
    """

    def __init__(
        self, database: Database, roles: Roles, clock: Clock, *, this_host: Callable[[], Ref],
        ended: Callable[[Ref], None], limit: int = SESSION_LIMIT, idle_limit: float = IDLE_LIMIT,
    ) -> None:  # fmt: skip
        self._database = database
        self._roles = roles
        self._clock = clock
        self._this_host = this_host
        self._ended = ended
        self._limit = limit
        self.idle_limit = idle_limit
        self.live: dict[Ref, Session] = {}
        database.subscribe(self._follow)

    def restore(self) -> None:
        """Take over the sessions that an earlier run stored, those expired meanwhile and those lent excepted."""
        now, wall = self._clock.monotonic(), self._clock.now()
        for ref, row in list(self._database.rows("session").items()):
            record = row.record
            if LENT in record["other_config"]:
                continue
            idle = max(0.0, (wall - _parsed(record["last_active"])).total_seconds())
            account = Account(
                record["auth_user_name"], self._stored_rank(record["is_local_superuser"], record["subject"]),
                record["is_local_superuser"], record["this_user"], record["subject"], record["auth_user_sid"],
            )  # fmt: skip
            self.live[ref] = Session(ref, account, account.rank, now - idle, record["originator"], written=now - idle)
        self.sweep()

    def open(self, account: Account, originator: str = "", *, lent: bool = False) -> Session:
        """Log an account in. Ends the least recently used session where the limit asks for it."""
        now = self._clock.monotonic()
        when = moment(self._clock.now())
        with self._database.transaction() as transaction:
            self._make_room(emergency=False)
            ref = transaction.create(
                "session",
                {
                    "this_host": self._this_host(),
                    "this_user": account.user,
                    "last_active": when,
                    "pool": False,
                    "is_local_superuser": account.superuser,
                    "subject": account.subject,
                    "validation_time": NEVER if account.superuser else when,
                    "auth_user_sid": account.sid,
                    "auth_user_name": account.name,
                    "originator": originator,
                    "other_config": {LENT: "true"} if lent else {},
                },
            )
        session = Session(ref, account, account.rank, now, originator, lent=lent, written=now)
        self.live[ref] = session
        return session

    @contextmanager
    def lend(self, account: Account, originator: str) -> Iterator[Session]:
        """A session of the account's for a program of this machine, for as long as the block lasts.

        It does not expire meanwhile. Over the network it is good for nothing: a program's arguments, where its
        reference may stand, can be read by every user of the machine.
        """
        session = self.open(account, originator, lent=True)
        session.busy += 1
        try:
            yield session
        finally:
            session.busy -= 1
            self.close(session.ref)

    def open_emergency(self, account: Account) -> Session:
        """A session of this host alone, for emergency calls; it lives in memory and is counted apart."""
        self._make_room(emergency=True)
        ref = f"OpaqueRef:{uuid4()}"
        session = Session(ref, account, account.rank, self._clock.monotonic(), emergency=True)
        self.live[ref] = session
        return session

    def use(self, ref: Ref, origin: Origin) -> Session:
        """The session of a call, marked as used now.

        Raises `SESSION_INVALID` when it does not exist, has expired, or is not good for calls from there.
        """
        session = self.live.get(ref)
        now = self._clock.monotonic()
        if session is None or self._expired(session, now) or (session.lent and not origin.local):
            raise ApiError("SESSION_INVALID", ref)
        session.last_active = now
        return session

    def close(self, ref: Ref) -> None:
        """End a session. One that is not there is no error."""
        session = self.live.get(ref)
        if session is None:
            return
        if self._database.find("session", ref) is not None:
            with self._database.transaction() as transaction:
                transaction.destroy("session", ref)
        self._drop(ref)

    def close_where(self, condition: Callable[[Session], bool]) -> None:
        """End every session for which the condition holds."""
        for session in [session for session in self.live.values() if condition(session)]:
            self.close(session.ref)

    def refresh_ranks(self, subject: Ref) -> None:
        """Give the subject's sessions the rank of its present roles; they are over when it is gone.

        Every committed change of a subject does this by itself.
        """
        gone = self._database.find("subject", subject) is None
        for session in [session for session in self.live.values() if session.account.subject == subject]:
            if gone:
                self._drop(session.ref)
            else:
                session.rank = self._stored_rank(session.account.superuser, subject)

    def sweep(self) -> None:
        """End expired sessions and write down when the others were used, where that is old."""
        now = self._clock.monotonic()
        self.close_where(lambda session: self._expired(session, now))
        over = [ref for ref in self._database.rows("session") if ref not in self.live]
        with self._database.transaction() as transaction:
            for ref in over:
                transaction.destroy("session", ref)
        self._write(now, WRITTEN_EVERY)

    def flush(self) -> None:
        """Write down when every session was last used, for an orderly stop."""
        self._write(self._clock.monotonic(), 0.0)

    def last_active(self, ref: Ref) -> str | None:
        """When a session was last used, by the wall clock; None when there is no such session."""
        session = self.live.get(ref)
        return None if session is None else self._wall(session.last_active, self._clock.monotonic())

    def _drop(self, ref: Ref) -> None:
        if self.live.pop(ref, None) is not None:
            self._ended(ref)

    def _follow(self, changes: Sequence[Change]) -> None:
        """Lets changes of stored objects act on open sessions at once, however they came about.

        A session whose object is gone is over, also when it went because a disk refused to take it; so is one whose
        subject is gone, and a subject's roles are its sessions' rank.
        """
        for change in changes:
            match change.row.class_name:
                case "session" if change.after is None:
                    self._drop(change.row.ref)
                case "subject":
                    self.refresh_ranks(change.row.ref)
                case _:
                    continue

    def _make_room(self, *, emergency: bool) -> None:
        counted = [session for session in self.live.values() if session.emergency is emergency]
        idle = sorted((session for session in counted if not session.busy), key=lambda session: session.last_active)
        for session in idle[: max(0, len(counted) - self._limit + 1)]:
            log.info("too many sessions: the one of %s used least recently ends", session.account.name)
            self.close(session.ref)

    def _expired(self, session: Session, now: float) -> bool:
        return not session.busy and now - session.last_active > self.idle_limit

    def _write(self, now: float, lag: float) -> None:
        stale = [
            session for session in self.live.values()
            if not session.emergency and session.last_active - session.written > lag
        ]  # fmt: skip
        if not stale:
            return
        with self._database.transaction(observed=True) as transaction:
            for session in stale:
                transaction.update("session", session.ref, last_active=self._wall(session.last_active, now))
                session.written = session.last_active

    def _wall(self, at: float, now: float) -> str:
        return moment(datetime.fromtimestamp(self._clock.now().timestamp() - (now - at), UTC))

    def _stored_rank(self, superuser: bool, subject: Ref) -> int:
        if superuser:
            return self._roles.highest
        row = self._database.find("subject", subject)
        return NO_RANK if row is None else self._roles.rank_of_refs(row.record["roles"])


def _parsed(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H:%M:%SZ").replace(tzinfo=UTC)
