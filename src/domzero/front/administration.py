"""What XenAPI has no call for: the local users with their passwords. Only over the Unix socket.

`GET /local/users` lists, `POST` adds or changes (`{"name", "role", "password", "fullname"}`), `DELETE` (`{"name"}`)
removes. Answers are JSON: `{"users": […]}` or `{"error": [code, …]}` with status 400.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from domzero.engine.errors import ApiError
from domzero.engine.sessions import Sessions
from domzero.engine.users import UnknownUserError, Users
from domzero.front.routes import Request, Response, Routes
from domzero.wire.http import HttpError

PATH = "/local/users"
JSON = (("content-type", "application/json"),)


class Administration:
    """The pages. `add_to` puts them on a server's table."""

    def __init__(self, users: Users, sessions: Sessions) -> None:
        self._users = users
        self._sessions = sessions

    def add_to(self, routes: Routes) -> None:
        """Serve the pages under `PATH`."""
        routes.page("GET", PATH, self._list)
        routes.page("POST", PATH, self._add)
        routes.page("DELETE", PATH, self._remove)

    async def _list(self, request: Request) -> Response:
        _require_local(request)
        return _answer(200, {"users": self._users.overview()})

    async def _add(self, request: Request) -> Response:
        fields = _fields(request)
        try:
            await self._users.add(
                _text(fields, "name"), _text(fields, "password"), _text(fields, "role"), _text(fields, "fullname", "")
            )
        except ApiError as error:
            return _answer(400, {"error": error.description})
        return _answer(200, {"users": self._users.overview()})

    async def _remove(self, request: Request) -> Response:
        name = _text(_fields(request), "name")
        try:
            await self._users.remove(name)
        except UnknownUserError:
            return _answer(400, {"error": ("UNKNOWN_USER", name)})
        # The user's sessions were over with the subject; this removes their objects, which others can see.
        self._sessions.sweep()
        return _answer(200, {"users": self._users.overview()})


def _require_local(request: Request) -> None:
    if not request.origin.local:
        raise HttpError(403, "This page answers on the Unix socket only.")


def _fields(request: Request) -> Mapping[str, Any]:
    _require_local(request)
    try:
        fields = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"The body is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise HttpError(400, "The body is no JSON object.")
    return fields


def _text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise HttpError(400, f"The body lacks the text {name}.")
    return value


def _answer(status: int, content: Mapping[str, Any]) -> Response:
    return Response(status, orjson.dumps(content), JSON)
