"""Connections that can be cut from another thread, and an opener that makes only such."""

from __future__ import annotations

import ftplib
import http.client
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.client import HTTPMessage
from typing import IO, Any
from urllib.parse import urlsplit

HOPS = 5
"""Redirections that are followed."""
MOST_LINES = 1000
"""Lines that an FTP server may say on one connection."""


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
    line: Line

    def connect(self) -> None:
        """What is added is a second descriptor: TLS takes the first one away, and its handshake can be slow, too."""
        super().connect()
        held = self.sock.dup()
        self.line.left.callback(held.close)
        self.line.add(held)


class _SecureOnLine(http.client.HTTPSConnection, _OnLine):
    """`_OnLine` comes second: the connection is part of the line before TLS begins on it."""


def _connections(kind: type[_OnLine], line: Line) -> Callable[..., http.client.HTTPConnection]:
    def connection(host: str, **options: Any) -> http.client.HTTPConnection:
        made = kind(host, **options)
        made.line = line
        return made

    return connection


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._connection = _connections(_OnLine, line)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._connection = _connections(_SecureOnLine, line)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _FtpConnection(ftplib.FTP):
    """Its connections, the one for commands and those for data, are part of a line."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._said = 0

    def open(self, host: str, port: int, timeout: float) -> None:
        """Connect, and hear the welcome: when that begins, the connection can be cut already."""
        self.host, self.port, self.timeout = host, port, timeout
        self.sock = socket.create_connection((host, port), timeout)
        self._line.left.callback(self.close)
        self._line.add(self.sock)
        self.af = self.sock.family
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()

    def getline(self) -> str:
        """A line of the server's. Its answers may have as many as it likes, and ftplib keeps all of them."""
        self._said += 1
        if self._said > MOST_LINES:
            raise OSError(f"the server said more than {MOST_LINES} lines")
        return super().getline()

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
        self.ftp = connection = _FtpConnection(self._line)
        connection.open(*self._place)
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

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:
        """Follow. What comes beside the new place is not read: the base class would keep all of it in memory."""
        fp.close()
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

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
