"""The API for plugins in Python: the names of the official binding, on this host's Unix socket.

    session = XenAPI.xapi_local()
    session.login_with_password("root", "")
    session.xenapi.VM.get_all()

A call that fails raises `Failure`, whose `details` are the error's code and parameters. Calls go over one connection,
which is made when the first one is.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import xmlrpc.client
from typing import Any, List, Optional
from urllib.parse import unquote

SOCKET = "DOMZERO_SOCKET"
"""The variable that names the host's Unix socket."""
USUAL_SOCKET = "/var/lib/xcp/xapi"
"""Where it is when no variable says so."""
UNIX = "http+unix://"


class Failure(Exception):
    """A call failed: `details` are the code and its parameters."""

    def __init__(self, details: List[str]) -> None:
        super().__init__(details)
        self.details = details

    def __str__(self) -> str:
        return str(self.details)


class Session:
    """A server, and who is logged in there. `uri` is http, https, or `http+unix://` with a quoted path.

    Messages of the API are attributes of `xenapi`; those named `login…` and `logout` keep and forget the session.
    """

    def __init__(
        self, uri: str, transport: Any = None, encoding: Optional[str] = None, verbose: bool = False,
        allow_none: bool = True, ignore_ssl: bool = False,
    ) -> None:  # fmt: skip
        self._session: Optional[str] = None
        if uri.startswith(UNIX):
            transport, uri = _UnixTransport(unquote(uri[len(UNIX) :])), "http://localhost"
        # Hosts have certificates that they made themselves; who ignores that says so.
        context = ssl._create_unverified_context() if ignore_ssl else None  # noqa: SLF001, S323
        self._server = xmlrpc.client.ServerProxy(
            uri, transport=transport, encoding=encoding, verbose=verbose, allow_none=allow_none, context=context
        )

    @property
    def handle(self) -> Optional[str]:
        """The session's reference."""
        return self._session

    @property
    def xenapi(self) -> _Name:
        """What the API is called on."""
        return _Name(self, "")

    def xenapi_request(self, methodname: str, params: Any) -> Any:
        """Call a method with all of its parameters, the session included. Raises `Failure`."""
        if methodname.startswith(("login", "slave_local_login")):
            self._session = self._call("session." + methodname, params)
            return None
        if methodname in ("logout", "session.logout"):
            self._call("session.logout", (self._session,))
            self._session = None
            return None
        return self._call(methodname, params)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("login", "slave_local_login")) or name == "logout":
            return lambda *params: self.xenapi_request(name, params)
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._server, name)

    def _call(self, method: str, params: Any) -> Any:
        response = getattr(self._server, method)(*params)
        if not isinstance(response, dict) or "Status" not in response:
            raise Failure(["MESSAGE_RESPONSE_UNKNOWN", str(response)[:200]])
        if response["Status"] != "Success":
            raise Failure(response["ErrorDescription"])
        return response.get("Value", "")


def xapi_local() -> Session:
    """This host's own API, without a password; nobody is logged in yet."""
    return Session(UNIX + os.environ.get(SOCKET, USUAL_SOCKET))


class _Name:
    """A name with dots, which can be called."""

    def __init__(self, session: Session, name: str) -> None:
        self._owner = session
        self._name = name

    def __getattr__(self, name: str) -> _Name:
        return _Name(self._owner, self._name + "." + name if self._name else name)

    def __call__(self, *args: Any) -> Any:
        if self._name.startswith(("login", "slave_local_login")):
            return self._owner.xenapi_request(self._name, args)
        return self._owner.xenapi_request(self._name, (self._owner.handle, *args))


class _UnixTransport(xmlrpc.client.Transport):
    """Calls go through a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        made = self._connection[1]
        if made is None:
            made = _UnixConnection(self._path)
            self._connection = host, made
        return made


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)
