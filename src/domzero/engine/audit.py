"""The audit: who called what on which objects, and how it ended. Told of are the calls that change something, and those
that were denied.

The dispatcher knows the protocol `Auditor` alone. `Audit` makes one line of JSON of each call; where the line goes is
somebody else's business (`audit_file`). JSON's escapes keep a client's text from looking like a line of its own.
"""

from __future__ import annotations

import hashlib
import json
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

import orjson

from domzero.engine.calls import Origin
from domzero.engine.clock import Clock, moment
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.errors import ApiError, UnheardError
from domzero.engine.exchange import Arguments, Page, PageFunction, Peer
from domzero.engine.sensitive import is_sensitive, without_keys, without_secrets, without_written_secrets
from domzero.engine.sessions import Session
from domzero.idl.types import NULL_REF, STRING, RefTo, SetOf, Type

LONGEST_VALUE = 200
"""Characters of a text that are kept; more would let a client fill the log."""
LOOKED_THROUGH = 1000
"""Characters of a text that secrets are looked for in: more than are kept, so that no half of one is."""
MOST_ITEMS = 16
"""Objects of a set, items of a list and keys of a map that are kept."""
SUCCESS = "success"
CANCELLED = "cancelled"


class Deed(Protocol):
    """A call under way. It ends by one of the two; what was done can fail after all when a disk refuses it."""

    def done(self, result: Any, /) -> None:
        """It was carried out."""
        ...

    def failed(self, problem: BaseException, /) -> None:
        """It was not, or not to its end, or it was taken back."""
        ...


class Call(Protocol):
    """What an audit wants to know of a message: its name, and the names and types of parameters and result."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Sequence[tuple[str, Type]]: ...
    @property
    def result(self) -> Type: ...


class Auditor(Protocol):
    """Who is told of calls. Nothing here may raise or wait."""

    def begin(self, call: Call, session: Session | None, origin: Origin, arguments: Sequence[Any]) -> Deed:
        """A call that changes something begins: objects are named now, while they are there."""
        ...


class _Untold:
    """A deed that nobody is told of."""

    def done(self, _result: Any, /) -> None:
        return

    def failed(self, _problem: BaseException, /) -> None:
        return


UNTOLD: Deed = _Untold()


class Audit:
    """Makes lines and hands them to `write`, without the line's end."""

    def __init__(self, database: Database, clock: Clock, write: Callable[[str], None]) -> None:
        self._database = database
        self.clock = clock
        self.write = write

    def begin(self, call: Call, session: Session | None, origin: Origin, arguments: Sequence[Any]) -> Deed:
        """See `Auditor`."""
        objects: list[dict[str, str]] = []
        values: dict[str, Any] = {}
        # The name of a class or field tells as much as that of a parameter: `set_password(self, value)`.
        cls, _, verb = call.name.partition(".")
        hide_all = is_sensitive(cls) or (verb.startswith(("set_", "add_")) and is_sensitive(verb))
        key = ""
        for (name, type_), value in zip(call.parameters, arguments, strict=False):
            if isinstance(type_, RefTo) or (isinstance(type_, SetOf) and isinstance(type_.item, RefTo)):
                objects += self._named(type_, value)
            else:
                values[name] = shown("secret" if hide_all or is_sensitive(key) else name, value)
            key = value if name == "key" and isinstance(value, str) else ""
        return _Line(self, call, _caller(session, origin), objects, values)

    def _named(self, type_: Type, value: Any) -> list[dict[str, str]]:
        """What tells people which objects are meant."""
        if isinstance(type_, SetOf):
            several = value if isinstance(value, list | tuple) else ()
            return [one for item in several[:MOST_ITEMS] for one in self._named(type_.item, item)]
        if not isinstance(type_, RefTo) or not isinstance(value, str) or value == NULL_REF:
            return []
        if type_.cls == "session":
            return [{"class": "session", "id": short(value)}]
        table = self._database.tables.by_class.get(type_.cls)
        row = None if table is None else table.rows.get(value)
        if row is None:
            # Who mixes up parameters may have put a session here.
            return [{"class": type_.cls, "unknown": short(value)}]
        found = {"class": type_.cls}
        for field, word in (("uuid", "uuid"), ("name_label", "name")):
            if field in row.record.layout.position:
                found[word] = row.record[field][:LONGEST_VALUE]
        return [found]

    def made(self, type_: Type, result: Any) -> list[dict[str, str]]:
        """The objects that a call gave back."""
        return self._named(type_, result)


class _Line:
    """A deed that becomes a line when it ends."""

    __slots__ = ("_audit", "_began", "_call", "_caller", "_objects", "_values")

    def __init__(
        self, audit: Audit, call: Call, caller: dict[str, str], objects: list[dict[str, str]], values: dict[str, Any]
    ) -> None:
        self._audit = audit
        self._call = call
        self._caller = caller
        self._objects = objects
        self._values = values
        self._began = audit.clock.monotonic()

    def done(self, result: Any) -> None:
        self._end(SUCCESS, self._audit.made(self._call.result, result))

    def failed(self, problem: BaseException) -> None:
        if isinstance(problem, UnheardError):
            # A stranger could have thousands of lines written in a second, and so push all others out.
            return
        if isinstance(problem, ApiError):
            self._end(problem.code, [])
        else:
            self._end(CANCELLED if isinstance(problem, CancelledError) else "INTERNAL_ERROR", [])

    def _end(self, result: str, made: list[dict[str, str]]) -> None:
        clock = self._audit.clock
        line: dict[str, Any] = {
            "time": _second(int(clock.now().timestamp())),
            **self._caller,
            "call": self._call.name,
            "result": result,
            "ms": round((clock.monotonic() - self._began) * 1000),
        }
        for name, told in (("objects", self._objects), ("made", made), ("parameters", self._values)):
            if told:
                line[name] = told
        self._audit.write(_encoded(line))


@lru_cache(maxsize=2)
def _second(since_1970: int) -> str:
    return moment(datetime.fromtimestamp(since_1970, UTC))


_encode_anything = json.JSONEncoder(separators=(",", ":")).encode


def _encoded(line: dict[str, Any]) -> str:
    """The line in ASCII alone: there are line breaks beyond it."""
    try:
        # Ten times as fast, and nearly always enough.
        encoded = orjson.dumps(line)
    except orjson.JSONEncodeError:
        return _encode_anything(line)
    return encoded.decode() if encoded.isascii() and b"\x7f" not in encoded else _encode_anything(line)


@lru_cache(maxsize=256)
def short(session: str) -> str:
    """What a session is called in the audit: nobody can use it in the session's place, or guess the session from it."""
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()[:12]


def shown(name: str, value: Any) -> Any:
    """A value as the audit keeps it: without secrets, and not longer than a line can bear."""
    return _cut(without_secrets(name, value))


def _cut(value: Any) -> Any:
    match value:
        case str():
            text = without_written_secrets(without_keys(value[:LOOKED_THROUGH]))
            return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
        case Mapping():
            return {str(_cut(key)): _cut(inner) for key, inner in list(value.items())[:MOST_ITEMS]}
        case list() | tuple():
            return [_cut(item) for item in value[:MOST_ITEMS]]
        case bool() | int() | float() | None:
            return value
    return type(value).__name__


def _caller(session: Session | None, origin: Origin) -> dict[str, str]:
    caller = {"from": "local" if origin.local else origin.address}
    if session is not None:
        caller["who"] = session.account.name or session.account.sid
        caller["session"] = short(session.ref)
    return caller


class StreamCall:
    """A stream that is joined, as a call: its one parameter is the object that it belongs to."""

    def __init__(self, name: str, cls: str) -> None:
        self.name = name
        self.parameters: Sequence[tuple[str, Type]] = ((cls, RefTo(cls)),)
        self.result: Type = STRING


class TextsCall:
    """A request whose parameters are texts."""

    def __init__(self, name: str, *parameters: str) -> None:
        self.name = name
        self.parameters: Sequence[tuple[str, Type]] = tuple((parameter, STRING) for parameter in parameters)
        self.result: Type = STRING


class _PageCall:
    """A page as a call: its parameters are the query's, and of the cookies those that say what is meant."""

    def __init__(self, page: Page, arguments: Arguments) -> None:
        self.name = f"{page.method} {page.path}"
        told = arguments.query.keys() | _POINTING
        self.given = {name: value for name, value in arguments.items() if name in told and name not in _OF_EVERY_PAGE}
        self.parameters: Sequence[tuple[str, Type]] = [(name, page.result) for name in self.given]
        self.result = page.result


_OF_EVERY_PAGE = frozenset({"session_id", "task_id", "subtask_of"})
_POINTING = frozenset({"ref", "uuid", "vdi", "sr_id", "sr_uuid", "base"})
"""Parameters that name objects: nobody may hide from the audit what was asked for by asking with a cookie."""


class AuditedPage:
    """A page's function, which tells the auditor of what it does."""

    def __init__(self, auditor: Auditor, page: Page, function: PageFunction) -> None:
        self._auditor = auditor
        self._page = page
        self._function = function

    async def __call__(self, context: Context, peer: Peer, arguments: Arguments) -> Any:
        """Carry it out."""
        deed = self._begin(context.session, context.origin, arguments)
        try:
            result = await self._function(context, peer, arguments)
        except BaseException as problem:
            deed.failed(problem)
            raise
        deed.done(result)
        return result

    def denied(self, session: Session | None, origin: Origin, arguments: Arguments) -> None:
        """Somebody asked for it who may not."""
        label = self._page.label
        self._begin(session, origin, arguments).failed(ApiError("RBAC_PERMISSION_DENIED", label, "No role permits it."))

    def _begin(self, session: Session | None, origin: Origin, arguments: Arguments) -> Deed:
        call = _PageCall(self._page, arguments)
        return self._auditor.begin(call, session, origin, list(call.given.values()))
