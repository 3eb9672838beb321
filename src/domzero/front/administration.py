"""What XenAPI has no call for: the local users with their passwords. Only over the Unix socket.

`GET /local/users` lists, `POST` adds or changes (`{"name", "role", "password", "fullname"}`), `DELETE` (`{"name"}`)
removes. Answers are JSON: `{"users": […]}` or `{"error": [code, …]}` with status 400.
"""

from __future__ import annotations

from domzero.engine.audit import Auditor, TextsCall
from domzero.engine.errors import ApiError
from domzero.engine.sessions import Sessions
from domzero.engine.users import UnknownUserError, Users
from domzero.front.local_pages import json_answer, json_fields, require_local, text
from domzero.front.routes import Request, Response, Routes

PATH = "/local/users"
ADDING = TextsCall(f"POST {PATH}", "name", "role")
REMOVING = TextsCall(f"DELETE {PATH}", "name")
"""What the audit calls them."""


class Administration:
    """The pages. `add_to` puts them on a server's table."""

    def __init__(self, users: Users, sessions: Sessions, auditor: Auditor) -> None:
        self._users = users
        self._sessions = sessions
        self._auditor = auditor

    def add_to(self, routes: Routes) -> None:
        """Serve the pages under `PATH`."""
        routes.page("GET", PATH, self._list)
        routes.page("POST", PATH, self._add)
        routes.page("DELETE", PATH, self._remove)

    async def _list(self, request: Request) -> Response:
        require_local(request)
        return json_answer(200, {"users": self._users.overview()})

    async def _add(self, request: Request) -> Response:
        fields = json_fields(request)
        name, password, role = (text(fields, key) for key in ("name", "password", "role"))
        fullname = text(fields, "fullname", "")
        deed = self._auditor.begin(ADDING, None, request.origin, (name, role))
        try:
            await self._users.add(name, password, role, fullname)
        except ApiError as error:
            deed.failed(error)
            return json_answer(400, {"error": error.description})
        deed.done("")
        return json_answer(200, {"users": self._users.overview()})

    async def _remove(self, request: Request) -> Response:
        name = text(json_fields(request), "name")
        deed = self._auditor.begin(REMOVING, None, request.origin, (name,))
        try:
            await self._users.remove(name)
        except UnknownUserError as error:
            deed.failed(error)
            return json_answer(400, {"error": ("UNKNOWN_USER", name)})
        deed.done("")
        # The user's sessions were over with the subject; this removes their objects, which others can see.
        self._sessions.sweep()
        return json_answer(200, {"users": self._users.overview()})
