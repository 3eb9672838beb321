"""What `xe` does with files: hands one to the host, sends one to a page, writes a page to one, joins the terminal."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import stat
import sys
import time
from urllib.parse import urlsplit

from domzero.client.xe_connection import UnreachableError, connect, connect_tcp
from domzero.wire import cli
from domzero.wire.cli import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from domzero.client.xe import Terminal

BLOCK = 256 << 10
KEEP_ALIVE = 60.0
"""Seconds after which the host is told that a transfer still goes on; it expects that every 300."""
PATIENCE = 5.0
"""Seconds for an answer to what was sent over TLS without saying how much it is. The task tells what became of it."""
MOST_REDIRECTS = 5
LONGEST_HEAD = 64 << 10
MOMENT, MOMENT_SIZE = "%Y-%m-%dT%H:%M:%SZ", 20
"""What ends a name that the host chooses."""
LEAVE = b"\x1d"
"""Ctrl-], which leaves a console."""


class TransferError(Exception):
    """A transfer came to nothing; the text is for a person."""


def transfer(terminal: Terminal, command: Message) -> None:
    """Do one of the commands about files, and tell the host whether it worked."""
    try:
        if command.tag == cli.LOAD:
            _load(terminal, command.text())
            return
        if command.tag == cli.HTTP_PUT:
            _put(terminal, command.text(0), command.text(1))
        elif command.tag == cli.HTTP_GET:
            _get(terminal, command.text(0), command.text(1))
        elif command.tag == cli.HTTP_CONNECT:
            _join(terminal, command.text())
    except (TransferError, UnreachableError, OSError, ValueError) as error:
        # A path that no encoding can carry, or a name with a zero byte, is a ValueError.
        sys.stderr.write(f"{error}\n")
        terminal.connection.sendall(cli.response(cli.FAILED))
    else:
        terminal.connection.sendall(cli.response(cli.OK))


def _allowed(terminal: Terminal, name: str) -> None:
    if name not in terminal.names:
        raise TransferError(f"The host asked for the file {name!r}, which the command line does not name")


def _named_after_a_moment(name: str) -> bool:
    """Whether it is a name in the current directory with a moment at its end, as `host-2026-01-31T12:00:00Z`."""
    try:
        time.strptime(name[-MOMENT_SIZE:], MOMENT)
    except ValueError:
        return False
    return len(name) > MOMENT_SIZE and "/" not in name and name[0] not in ".-" and name.isprintable()


def _load(terminal: Terminal, name: str) -> None:
    """Hand a file over in pieces."""
    _allowed(terminal, name)
    with open(name, "rb") as file:
        terminal.connection.sendall(cli.response(cli.OK))
        while block := file.read(BLOCK):
            terminal.connection.sendall(cli.chunk(len(block)) + block)
    terminal.connection.sendall(cli.end())


class _Page:
    """A request to a page of the host, on a connection of its own."""

    def __init__(self, terminal: Terminal, method: str, path: str, headers: str = "") -> None:
        self._terminal = terminal
        self._told = time.monotonic()
        self.connection, target = _opened(terminal, path)
        self.connection.settimeout(KEEP_ALIVE)
        self.early = b""
        self.send(f"{method} {target} HTTP/1.0\r\nuser-agent: xe\r\n{headers}\r\n".encode())

    def wait(self) -> None:
        """Tell the host from time to time that the transfer goes on."""
        if time.monotonic() - self._told >= KEEP_ALIVE:
            self._terminal.wait()
            self._told = time.monotonic()

    def send(self, data: bytes) -> None:
        """Send everything, however long it takes."""
        view = memoryview(data)
        while view:
            with contextlib.suppress(TimeoutError):
                view = view[self.connection.send(view) :]
            self.wait()

    def receive(self) -> bytes:
        """The next bytes, however long they take; none at the end."""
        if self.early:
            data, self.early = self.early, b""
            return data
        while True:
            self.wait()
            with contextlib.suppress(TimeoutError):
                return self.connection.recv(BLOCK)

    def answered(self) -> bool:
        """Whether the head of the answer has come, or the host has gone. Looks without waiting."""
        if not select.select([self.connection], [], [], 0)[0]:
            return b"\r\n\r\n" in self.early
        self.connection.setblocking(False)
        try:
            data = self.connection.recv(BLOCK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False  # TLS has things to say of its own
        finally:
            self.connection.settimeout(KEEP_ALIVE)
        self.early += data
        return not data or b"\r\n\r\n" in self.early

    def answers_within(self, seconds: float) -> bool:
        """Whether the head of the answer comes in that time."""
        deadline = time.monotonic() + seconds
        while not self.answered():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            select.select([self.connection], [], [], left)
        return True

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer. Raises `TransferError`."""
        raw = b""
        while b"\r\n\r\n" not in raw:
            data = self.receive()
            if not data or len(raw) > LONGEST_HEAD:
                raise TransferError("The host gave no answer to the transfer")
            raw += data
        top, _, self.early = raw.partition(b"\r\n\r\n")
        return answer_of(top)

    def close(self) -> None:
        """Let go of the connection."""
        self.connection.close()


def answer_of(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer's head without its blank line. Raises `TransferError`."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not _is_number(words[1], 3):
        raise TransferError("The host answered the transfer with something that is no HTTP")
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _opened(terminal: Terminal, path: str) -> tuple[socket.socket, str]:
    """A connection for a path on the same host, or for a whole address, and what to ask for there."""
    server, target = place_of(path)
    return (connect_tcp(*server), target) if server is not None else (connect(terminal.options), target)


def place_of(path: str) -> tuple[tuple[str, int, bool] | None, str]:
    """The server that a whole address names (host, port, whether by TLS; None for the same one again) and what to ask
    for there. Raises `TransferError` for an address that cannot be used."""
    try:
        parts = urlsplit(path)
        port = parts.port
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        known = False
    else:
        if not parts.scheme:
            return None, path
    if not known:
        raise TransferError(f"The host names an address that cannot be used: {path}")
    tls = parts.scheme == "https"
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return (parts.hostname or "", port or (443 if tls else 80), tls), target


def _is_number(text: str, longest: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= longest


def _status_error(status: int) -> TransferError:
    return TransferError(f"The host refused the transfer with the HTTP status {status}")


def _put(terminal: Terminal, name: str, path: str) -> None:
    """Send a file, or standard input for an empty name."""
    _allowed(terminal, name)
    for _ in range(MOST_REDIRECTS):
        with open(name or 0, "rb", closefd=bool(name), buffering=0) as file:
            information = os.fstat(file.fileno())
            size = information.st_size if stat.S_ISREG(information.st_mode) else None
            page = _Page(terminal, "PUT", path, "" if size is None else f"content-length: {size}\r\n")
            try:
                status, headers = _send_file(page, file.fileno(), size) or page.head()
            finally:
                page.close()
        if status == 302 and name:
            path = headers.get("location", "")
        elif status != 200:
            raise _status_error(status)
        else:
            return
    raise TransferError("The host sends the transfer round in circles")


def _send_file(page: _Page, descriptor: int, size: int | None) -> tuple[int, dict[str, str]] | None:
    """Send a file's content; the answer, when it came before the end.

    Imports are answered 200 before anything was read, and end as their task says. Any other answer that comes before
    the end means that the host wants no more.
    """
    sent, answer = 0, None
    with Progress(size) as progress:
        try:
            while block := os.read(descriptor, BLOCK if size is None else min(BLOCK, size - sent)):
                if answer is None and page.answered():
                    answer = page.head()
                    if answer[0] != 200:
                        return answer
                page.send(block)
                sent += len(block)
                progress.show(sent)
            if size is None and not isinstance(page.connection, ssl.SSLSocket):
                with contextlib.suppress(OSError):  # a host that has answered may have gone
                    page.connection.shutdown(socket.SHUT_WR)
            elif size is None and answer is None and not page.answers_within(PATIENCE):
                # TLS has no connections closed on one side: the host hears of the end when this one closes altogether.
                return 200, {}
        except (BrokenPipeError, ConnectionResetError):
            return answer  # the answer that is there, if there is one, says why
    if size is not None and sent < size:
        raise TransferError("The file became shorter while it was sent")
    return answer


def _get(terminal: Terminal, name: str, path: str) -> None:
    """Write a page to a new file, or to standard output for an empty name."""
    if not (terminal.host_names_file and _named_after_a_moment(name)):
        _allowed(terminal, name)
    for _ in range(MOST_REDIRECTS):
        page = _Page(terminal, "GET", path)
        try:
            status, headers = page.head()
            if status == 200:
                length = headers.get("content-length", "")
                _write_file(page, name, int(length) if _is_number(length, 19) else None)
                return
        finally:
            page.close()
        if status != 302:
            raise _status_error(status)
        path = headers.get("location", "")
    raise TransferError("The host sends the transfer round in circles")


def _write_file(page: _Page, name: str, size: int | None) -> None:
    written = 0
    with _target(name) as descriptor, Progress(size) as progress:
        while block := page.receive():
            view = memoryview(block)
            while view:
                view = view[os.write(descriptor, view) :]
            written += len(block)
            progress.show(written)
        if size is not None and written != size:
            raise TransferError(f"The transfer ended after {written} of {size} bytes")


@contextlib.contextmanager
def _target(name: str) -> Iterator[int]:
    """A file to write to. One that was made here is removed when writing fails; one that exists is left alone."""
    if not name:
        yield sys.stdout.fileno()
        return
    made = True
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if stat.S_ISREG(os.stat(name).st_mode):
            raise
        made, descriptor = False, os.open(name, os.O_WRONLY)
    try:
        yield descriptor
    except BaseException:
        if made:
            os.unlink(name)
        raise
    finally:
        os.close(descriptor)


class Progress:
    """How far a transfer is, on a terminal: a bar where the size is known, and else how much has gone through."""

    WIDTH = 40

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._terminal = sys.stderr.isatty()
        self._shown = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown >= 0:
            sys.stderr.write("\n")

    def show(self, done: int) -> None:
        """So many bytes are through."""
        now = min(100, 100 * done // self._size) if self._size else done >> 20
        if self._terminal and now != self._shown:
            self._shown = now
            sys.stderr.write(f"\r{self._bar(now) if self._size else f'{now} MiB'}")
            sys.stderr.flush()

    def _bar(self, percent: int) -> str:
        filled = percent * self.WIDTH // 100
        return f"[{'#' * filled}{' ' * (self.WIDTH - filled)}] {percent:3d} %"


def _join(terminal: Terminal, path: str) -> None:
    """Join the terminal to a stream of the host until either ends it, the person by Ctrl-]."""
    page = _Page(terminal, "CONNECT", path)
    try:
        status, _ = page.head()
        if status != 200:
            raise _status_error(status)
        if not sys.stdin.isatty():
            _relay(page)
            return
        import termios
        import tty

        before = termios.tcgetattr(0)
        sys.stderr.write("Ctrl-] leaves the console.\n")
        tty.setraw(0)
        try:
            _relay(page)
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
    finally:
        page.close()


def _relay(page: _Page) -> None:
    readers: list[socket.socket | int] = [page.connection, 0]
    out = sys.stdout.fileno()
    while True:
        pending = getattr(page.connection, "pending", None)
        ready = [page.connection] if page.early or (pending and pending()) else select.select(readers, [], [], 30.0)[0]
        page.wait()
        if 0 in ready:
            typed, leave, _ = (data := os.read(0, BLOCK)).partition(LEAVE)
            if typed:
                page.send(typed)
            if leave:
                return
            if not data:
                readers.remove(0)
        if page.connection in ready:
            data = page.receive()
            if not data:
                return
            while data:
                data = data[os.write(out, data) :]
