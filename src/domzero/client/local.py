"""A small HTTP client for the daemon's Unix socket; standard library only, so that commands start quickly."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any


class LocalError(Exception):
    """The daemon cannot be reached or refused; the text says why, fit for a person."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request(path: Path, method: str, target: str, content: Any = None, *, timeout: float = 30.0) -> Any:
    """Send one request with a JSON body and return the decoded answer. Raises `LocalError`."""
    connection = _UnixConnection(path, timeout)
    try:
        body = None if content is None else json.dumps(content)
        connection.request(method, target, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise LocalError(f"no domzero answers at {path}: {error}") from error
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise LocalError(f"{path} answered {response.status} {response.reason}") from error
    if response.status != 200:
        raise LocalError(": ".join(str(part) for part in answer.get("error", [response.reason])))
    return answer
