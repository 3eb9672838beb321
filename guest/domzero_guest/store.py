"""The store as the agent uses it: one request at a time, and the names of what has changed meanwhile.

A stream is the machine's virtio-serial port, Xen's own device, or a Unix socket. Whatever breaks, it ends with `Lost`.
"""

import errno
import os
import re
import select
import socket
import stat
import time
from typing import Callable, Dict, List, Optional, Sequence

from . import wire

PATIENCE = 10.0
"""Seconds that the host may take for one reply; longer than that and it is gone, or was replaced by another one."""
_PIECE = 4096
_MOST_PIECES = 64
_NAME = re.compile(rb"[A-Za-z0-9_@-]+")


class Lost(Exception):  # noqa: N818 - a state that the agent comes back from
    """The connection is of no use any more; a new one has to be made."""


class Refused(Exception):  # noqa: N818 - an answer
    """The host says no. `code` is the protocol's name of the error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Stream:
    """A file descriptor that nobody waits for longer than said."""

    def __init__(self, path: str) -> None:
        """Open a device or connect to a socket. Raises `Lost`."""
        try:
            self.descriptor = _opened(path)
        except OSError as error:
            raise Lost("{} cannot be opened: {}".format(path, error.strerror or error)) from error

    def read(self, timeout: float) -> bytes:
        """What has come, empty when nothing comes within so many seconds. Raises `Lost` at the end of the stream."""
        try:
            if not self._ready(select.POLLIN, timeout):
                return b""
            data = os.read(self.descriptor, _PIECE)
        except BlockingIOError:
            # The port says that something happened, and nothing can be read: the host has let go of it.
            raise Lost("the host has closed the port") from None
        except OSError as error:
            raise Lost("reading failed: {}".format(error.strerror)) from error
        if not data:
            raise Lost("the host has closed the port")
        return data

    def write(self, data: bytes, timeout: float) -> None:
        """Send everything. Raises `Lost`, also when the host does not take it in time."""
        deadline = time.monotonic() + timeout
        while data:
            try:
                data = data[os.write(self.descriptor, data) :]
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not self._ready(select.POLLOUT, left):
                    raise Lost("the host takes nothing") from None
            except OSError as error:
                raise Lost("writing failed: {}".format(error.strerror)) from error

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)

    def _ready(self, event: int, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, event)
        found = [happened for _, happened in poll.poll(max(0.0, timeout) * 1000)]
        if found and not found[0] & event:
            raise Lost("the host has closed the port")
        return bool(found)


class Store:
    """Requests and their answers. Paths are relative to the machine's own directory.

    `changed` has the tokens of watches that have fired; no other token ever gets into it, so it stays small.
    """

    def __init__(self, stream: Stream, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.changed: Dict[str, None] = {}
        self._stream = stream
        self._monotonic = monotonic
        self._decoder = wire.Decoder()
        self._watched: Dict[bytes, str] = {}
        # Replies to a program that used the port before are told from ours by their numbers.
        self._number = int.from_bytes(os.urandom(3), "little") << 8

    def read(self, path: str) -> bytes:
        """A node's value. Raises `Refused`, `Lost`."""
        return self._ask(wire.READ, path.encode("ascii") + b"\0")

    def children(self, path: str) -> List[str]:
        """The names below a node that are usable as such. Raises `Refused`, `Lost`."""
        listed = self._ask(wire.DIRECTORY, path.encode("ascii") + b"\0")
        return [name.decode("ascii") for name in listed.split(b"\0") if _NAME.fullmatch(name)]

    def write(self, path: str, value: bytes) -> None:
        """Set a node, which is made when it is not there. Raises `Refused`, `Lost`."""
        self._ask(wire.WRITE, path.encode("ascii") + b"\0" + value)

    def remove(self, path: str) -> None:
        """Remove a node and what is below it; it may be gone already. Raises `Refused`, `Lost`."""
        try:
            self._ask(wire.RM, path.encode("ascii") + b"\0")
        except Refused as error:
            if error.code != "ENOENT":
                raise

    def watch(self, path: str) -> None:
        """Have a node and all below it watched; the path is the token. It counts as changed now.

        Raises `Refused`, `Lost`.
        """
        token = path.encode("ascii")
        self._watched[token] = path
        self.changed[path] = None
        try:
            self._ask(wire.WATCH, token + b"\0" + token + b"\0")
        except Refused as error:
            if error.code != "EEXIST":  # an agent before us had it
                raise

    def is_watched(self, path: str) -> bool:
        """Whether the host still knows of a watch. It counts as changed now. Raises `Lost`.

        Watching it again would not tell: Xen's own device takes a watch as often as it is asked to.
        """
        token = path.encode("ascii")
        try:
            self._ask(wire.UNWATCH, token + b"\0" + token + b"\0")
            self.watch(path)
        except Refused:
            return False
        return True

    def take_changed(self) -> Sequence[str]:
        """What has changed since this was called before, without waiting. Raises `Lost`."""
        for _ in range(_MOST_PIECES):
            data = self._stream.read(0)
            self._decoder.feed(data)
            self._take_messages(None)
            if not data:
                break
        changed, self.changed = self.changed, {}
        return list(changed)

    def has_changed(self) -> bool:
        """Whether `take_changed` has something that came together with a reply. Raises `Lost`."""
        self._take_messages(None)
        return bool(self.changed)

    def _ask(self, operation: int, payload: bytes) -> bytes:
        self._number = (self._number + 1) & 0xFFFFFFFF
        deadline = self._monotonic() + PATIENCE
        self._stream.write(wire.encode(operation, self._number, payload), PATIENCE)
        while True:
            answer = self._take_messages(self._number)
            if answer is not None:
                return _value(answer, operation)
            left = deadline - self._monotonic()
            if left <= 0:
                raise Lost("the host does not answer")
            self._decoder.feed(self._stream.read(left))

    def _take_messages(self, request: Optional[int]) -> Optional[wire.Message]:
        """Note events up to the reply to a request; None when it is not there yet. Other replies are nobody's."""
        while True:
            try:
                message = self._decoder.next()
            except wire.FramingError as error:
                raise Lost(str(error)) from error
            if message is None:
                return None
            if message.operation == wire.WATCH_EVENT:
                self._note(message.payload)
            elif message.request == request:
                return message

    def _note(self, payload: bytes) -> None:
        parts = payload.split(b"\0")
        if len(parts) >= 2 and parts[1] in self._watched:
            self.changed[self._watched[parts[1]]] = None


def wait(descriptors: Sequence[int], timeout: float) -> None:
    """Until one of them has something to say, or so many seconds have passed."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll(max(0.0, timeout) * 1000)


def _value(answer: wire.Message, operation: int) -> bytes:
    if answer.operation == wire.ERROR:
        raise Refused(answer.payload.rstrip(b"\0")[:16].decode("ascii", "replace"))
    if answer.operation != operation:
        raise Lost("the host answers something else")
    return answer.payload


def _opened(path: str) -> int:
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(PATIENCE)
        connected.connect(path)
        connected.setblocking(False)
        return connected.detach()
    except socket.timeout as error:
        raise OSError(errno.ETIMEDOUT, "nobody answers") from error
    finally:
        connected.close()
