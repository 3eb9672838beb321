"""Who asks for a page or a stream: by session, by password, or by coming over the Unix socket.

The order is XenServer's: the cookie `session_id`, the query's `session_id`, HTTP Basic, and trust in the Unix socket. A
session in use here counts as busy: it does not expire meanwhile. A password gets a session of its own for as long as
it is needed.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from domzero.engine.audit import Auditor, TextsCall
from domzero.engine.clock import Clock
from domzero.engine.errors import ApiError
from domzero.engine.login import Door
from domzero.engine.roles import Roles
from domzero.engine.sessions import Session, Sessions
from domzero.front.routes import Request
from domzero.wire.http import HttpError, RequestHead

SESSION = "session_id"
LOGIN = TextsCall("session.login_with_password", "uname", "originator")
"""What the audit calls a password that came with a request."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was let in. `session` is None for root on the Unix socket."""

    session: Session | None
    sessions: Sessions
    highest: int
    """The rank of root."""

    @property
    def rank(self) -> int:
        """What the caller's roles permit now."""
        return self.highest if self.session is None else self.session.rank

    @property
    def is_in(self) -> bool:
        """Whether the session has not ended meanwhile."""
        return self.session is None or self.sessions.live.get(self.session.ref) is self.session


class Access:
    """Lets callers of pages in. `auditor`, where there is one, is told of passwords that were not good.

    `guard` may be set and taken away at any time: it looks at a request before anything else and raises `HttpError` to
    refuse it, and with it the task that it names stays as it is.
    """

    def __init__(
        self, sessions: Sessions, door: Door, roles: Roles, clock: Clock, auditor: Auditor | None = None
    ) -> None:
        self.guard: Callable[[Request], None] | None = None
        self._sessions = sessions
        self._door = door
        self._roles = roles
        self._clock = clock
        self._auditor = auditor

    def rank(self, role: str) -> int:
        """The rank of a role. Raises `KeyError` when there is no such role."""
        return self._roles.rank(role)

    @asynccontextmanager
    async def caller(self, request: Request, realm: str) -> AsyncIterator[Caller]:
        """The one who asks, for as long as the block lasts.

        Raises `HttpError` 401 (with the realm) for a session or password that is not good or for neither, 403 for an
        account without a role and for another site's page that uses what a browser sends along by itself, and what the
        guard raises.
        """
        if self.guard is not None:
            self.guard(request)
        token = _token(request.head)
        basic = name_and_password(request.head) if token is None else None
        if _is_ambient(request.head):
            _refuse_other_sites(request.head)
        if token is not None:
            session = self._known(token, request, realm)
        elif basic is not None:
            session = await self._login(basic, request, realm)
        elif request.origin.local:
            yield Caller(None, self._sessions, self._roles.highest)
            return
        else:
            raise unauthorized(realm, "A session or a password is needed.")
        session.busy += 1
        try:
            yield Caller(session, self._sessions, self._roles.highest)
        finally:
            session.busy -= 1
            session.last_active = self._clock.monotonic()
            if basic is not None:
                self._sessions.close(session.ref)

    def _known(self, token: str, request: Request, realm: str) -> Session:
        try:
            session = self._sessions.use(token, request.origin)
        except ApiError:
            raise unauthorized(realm, "There is no such session.") from None
        if session.emergency:
            raise unauthorized(realm, "A session for emergency calls opens no pages.")
        return session

    async def _login(self, basic: tuple[str, str], request: Request, realm: str) -> Session:
        try:
            return await self._door.login(*basic, realm, request.origin)
        except ApiError as error:
            if self._auditor is not None:
                self._auditor.begin(LOGIN, None, request.origin, (basic[0], realm)).failed(error)
            if error.code == "SESSION_AUTHORIZATION_FAILED":
                raise HttpError(403, "The account has no role here.") from None
            raise unauthorized(realm, "Name and password do not fit together.") from None


def guarded_like_calls(calls: Callable[[], object], booting: object) -> Callable[[Request], None]:
    """A guard that follows the one of calls, which `calls` tells: while that is `booting` every request is refused, and
    while it is any other those that send something, for what they change would be lost."""

    def guard(request: Request) -> None:
        present = calls()
        if present is booting or (present is not None and request.head.method in ("PUT", "POST")):
            raise HttpError(503, "The host is just starting; try again in a moment.", (("retry-after", "5"),))

    return guard


def is_anonymous(request: Request) -> bool:
    """Whether a request says nothing at all of who makes it, truthfully or not."""
    head = request.head
    return _token(head) is None and head.header("authorization") is None and not request.origin.local


def unauthorized(realm: str, text: str) -> HttpError:
    """The answer to somebody who did not say, or not truthfully, who they are."""
    return HttpError(401, text, (("www-authenticate", f'Basic realm="{realm}"'),))


def require(caller: Caller, rank: int) -> None:
    """Raises `HttpError` 403 for a caller whose roles permit less than the rank does."""
    if caller.rank < rank:
        raise HttpError(403, "No role of this session permits it.")


def _token(head: RequestHead) -> str | None:
    token = head.cookies().get(SESSION)
    return head.arguments().get(SESSION) if token is None else token


def _is_ambient(head: RequestHead) -> bool:
    """Whether a browser may have sent along, unasked, what lets the caller in; a query's session was put there."""
    return SESSION in head.cookies() or SESSION not in head.arguments()


def _refuse_other_sites(head: RequestHead) -> None:
    """Browsers name the page's origin in requests that cross sites (and in WebSockets'); programs do not."""
    origin = head.header("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != (head.header("host") or "").lower():
        raise HttpError(403, "Another site's page must name the session itself, in the query.")


def name_and_password(head: RequestHead) -> tuple[str, str] | None:
    """By RFC 7617; None where the request has none. Raises `HttpError` 400 when they cannot be read."""
    scheme, _, encoded = (head.header("authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # of whichever kind: neither base64 nor UTF-8, or letters beyond ASCII
        raise HttpError(400, "The Authorization header is malformed.") from None
    if not colon:
        raise HttpError(400, "The Authorization header has no password.")
    return name, password
