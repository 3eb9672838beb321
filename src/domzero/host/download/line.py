"""Connections that can be cut from another thread, and an opener that makes only such."""

from __future__ import annotations

import ftplib
import http.client
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from http.client import HTTPMessage
from typing import IO, Any
from urllib.parse import urlsplit

HOPS = 5
"""Redirections that are followed."""


class Line:
    """The connections of one download."""

    def __init__(self) -> None:
        self.left = ExitStack()
        """What else is to be closed in the end."""
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._cut = False

    def is_cut(self) -> bool:
        """Whether it was cut."""
        return self._cut

    def add(self, connection: socket.socket) -> None:
        """A connection that is part of it; cut at once where the line is."""
        with self._lock:
            self._sockets.append(connection)
            if self._cut:
                _shut(connection)

    def cut(self) -> None:
        """Whoever reads or writes on it fails or finds its end, now and from now on."""
        with self._lock:
            self._cut = True
            for connection in self._sockets:
                _shut(connection)

    def close(self) -> None:
        """Let go of what urllib leaves open when something goes wrong."""
        self.left.close()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it is closed or was never open: what was wanted
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _OnLine(http.client.HTTPConnection):
    def __init__(self, line: Line, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._line = line

    def connect(self) -> None:
        super().connect()
        self._line.add(self.sock)


class _SecureOnLine(_OnLine, http.client.HTTPSConnection):
    """`_OnLine` comes first: what is added to the line is the connection that speaks TLS."""


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._connection: Callable[..., http.client.HTTPConnection] = partial(_OnLine, line)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._connection: Callable[..., http.client.HTTPConnection] = partial(_SecureOnLine, line)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _FtpConnection(ftplib.FTP):
    """Its connections, the one for commands and those for data, are part of a line."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def connect(self, host: str = "", port: int = 0, timeout: float = -999, source_address: Any = None) -> str:
        welcome = super().connect(host, port, timeout, source_address)
        self._line.left.callback(self.close)
        assert self.sock is not None
        self._line.add(self.sock)
        return welcome

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        connection, size = super().ntransfercmd(cmd, rest)
        self._line.add(connection)
        return connection, size


class _FtpSession(urllib.request.ftpwrapper):
    """As its base class, with a connection of ours."""

    def __init__(self, line: Line, user: str, password: str, host: str, port: int, dirs: Any, timeout: float) -> None:
        self._line, self._place, self._login = line, (host, port, timeout), (user, password)
        self._directory = "/".join(dirs)
        super().__init__(user, password, host, port, dirs, timeout, persistent=False)

    def init(self) -> None:
        self.busy = 0
        self.ftp = _FtpConnection(self._line)
        self.ftp.connect(*self._place)
        self.ftp.login(*self._login)
        self.ftp.cwd(self._directory)


class _Ftp(urllib.request.FTPHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def connect_ftp(
        self, user: str, passwd: str, host: str, port: Any, dirs: Any, timeout: float
    ) -> urllib.request.ftpwrapper:
        return _FtpSession(self._line, user, passwd, host, port, dirs, timeout)


class Redirections(urllib.request.HTTPRedirectHandler):
    """To http, https and ftp alone, as its base class has it; a few of them, and none that leaves https."""

    max_redirections = HOPS
    max_repeats = 2

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener(line: Line) -> urllib.request.OpenerDirector:
    """An opener for http, https and ftp whose connections are part of the line."""
    return urllib.request.build_opener(_Plain(line), _Secure(line), _Ftp(line), Redirections())
