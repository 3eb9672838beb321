"""Connections that can be cut from another thread, and an opener that makes only such."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPMessage
from typing import IO, Any
from urllib.parse import urlsplit

HOPS = 5
"""Redirections that are followed."""


class Line:
    """The connections of one download."""

    def __init__(self) -> None:
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


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it is closed or was never open: what was wanted
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    def __init__(self, line: Line, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._line = line

    def connect(self) -> None:
        super().connect()
        self._line.add(self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, line: Line, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._line = line

    def connect(self) -> None:
        super().connect()
        self._line.add(self.sock)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._connection: Callable[..., http.client.HTTPConnection] = partial(_Connection, line)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._connection: Callable[..., http.client.HTTPConnection] = partial(_SecureConnection, line)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


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
    """An opener for http, https and ftp whose connections over http and https are part of the line."""
    return urllib.request.build_opener(_Plain(line), _Secure(line), Redirections())
