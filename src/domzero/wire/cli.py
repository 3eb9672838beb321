"""The protocol between `xe` and a host: what follows the request `POST /cli`. A codec without I/O.

After the request, whose body holds the command line with one argument a line, either side sends a *hello* (a prefix
and two version numbers); from then on *messages*: a length and that many bytes of payload. Integers have 32 bits,
signed, the least significant byte first. A `Chunk` is followed by as many raw bytes as it says, outside any message.

The client imports this too, and must start quickly: it needs nothing but `struct`.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

PREFIX = b"XenSource thin CLI protocol"
MAJOR = 0
MINOR = 2
WAIT_SINCE = 2
"""Since this minor version a client that transfers a file says `Wait` from time to time."""

COMMAND, RESPONSE, BLOB = 9, 10, 11
PRINT, LOAD, PROMPT, EXIT = 0, 1, 3, 4
OK, FAILED, CHUNK, END = 5, 6, 7, 8
HTTP_GET, HTTP_PUT, ERROR, DEBUG = 12, 13, 14, 15
PRINT_STDERR, HTTP_CONNECT, WAIT = 16, 17, 18

LONGEST_MESSAGE = 16 << 20
"""A payload that claims to be longer is refused."""
MOST_STRINGS = 4096
"""An error with more parameters is refused."""

_INT = Struct("<i")
_HELLO = Struct("<27sii")
HELLO_SIZE = _HELLO.size

_ARGUMENTS = {
    (COMMAND, PRINT): "s",
    (COMMAND, LOAD): "s",
    (COMMAND, HTTP_GET): "ss",
    (COMMAND, HTTP_PUT): "ss",
    (COMMAND, HTTP_CONNECT): "s",
    (COMMAND, PROMPT): "",
    (COMMAND, EXIT): "i",
    (COMMAND, ERROR): "sl",
    (COMMAND, DEBUG): "s",
    (COMMAND, PRINT_STDERR): "s",
    (RESPONSE, OK): "",
    (RESPONSE, FAILED): "",
    (RESPONSE, WAIT): "",
    (BLOB, CHUNK): "i",
    (BLOB, END): "",
}
"""By kind and tag, what a message carries: `s` text, `i` a number, `l` a list of texts."""

Value: TypeAlias = "str | int | tuple[str, ...]"


class ProtocolError(Exception):
    """What came is not this protocol; the text says how."""


class Message:
    """One message: its kind (`COMMAND` …), its tag (`PRINT` …) and what it carries."""

    __slots__ = ("kind", "tag", "values")

    def __init__(self, kind: int, tag: int, *values: Value) -> None:
        self.kind = kind
        self.tag = tag
        self.values = values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (self.kind, self.tag, self.values) == (other.kind, other.tag, other.values)

    def __hash__(self) -> int:
        return hash((self.kind, self.tag, self.values))

    def __repr__(self) -> str:
        return f"Message({self.kind}, {self.tag}, {self.values})"

    def text(self, position: int = 0) -> str:
        """The text at a position. Raises `ProtocolError` where there is none."""
        value = self.values[position] if position < len(self.values) else None
        if not isinstance(value, str):
            raise ProtocolError(f"{self!r} has no text at {position}")
        return value

    def number(self) -> int:
        """The number that comes first. Raises `ProtocolError` where there is none."""
        value = self.values[0] if self.values else None
        if not isinstance(value, int):
            raise ProtocolError(f"{self!r} has no number")
        return value


def command(tag: int, *values: Value) -> bytes:
    """A command, from the host to the client, as bytes."""
    return encode(Message(COMMAND, tag, *values))


def response(tag: int) -> bytes:
    """A response, from the client to the host, as bytes."""
    return encode(Message(RESPONSE, tag))


def chunk(length: int) -> bytes:
    """The announcement of that many raw bytes."""
    return encode(Message(BLOB, CHUNK, length))


def end() -> bytes:
    """The end of a blob."""
    return encode(Message(BLOB, END))


def encode(message: Message) -> bytes:
    """A message with its length. Raises `ValueError` for one that does not exist, or is longer than a reader takes."""
    shape = _ARGUMENTS.get((message.kind, message.tag))
    if shape is None or len(shape) != len(message.values):
        raise ValueError(f"there is no such message: {message!r}")
    parts = [_INT.pack(message.kind), _INT.pack(message.tag)]
    for value in message.values:
        if isinstance(value, str):
            parts.append(_text(value))
        elif isinstance(value, int):
            parts.append(_INT.pack(value))
        else:
            parts += [_INT.pack(len(value)), *map(_text, value)]
    payload = b"".join(parts)
    if len(payload) > LONGEST_MESSAGE:
        raise ValueError(f"a message of {len(payload)} bytes is too long")
    return _INT.pack(len(payload)) + payload


def _text(value: str) -> bytes:
    # File names may hold bytes that are no text; Python carries them as lone surrogates.
    raw = value.encode("utf-8", "surrogateescape")
    return _INT.pack(len(raw)) + raw


def hello(minor: int = MINOR) -> bytes:
    """What either side says first."""
    return _HELLO.pack(PREFIX, MAJOR, minor)


def check_hello(raw: bytes) -> int:
    """The other side's minor version. Raises `ProtocolError` unless its hello is of this protocol's major version."""
    if len(raw) != HELLO_SIZE:
        raise ProtocolError("the greeting is incomplete")
    prefix, major, minor = _HELLO.unpack(raw)
    if prefix != PREFIX:
        raise ProtocolError("the other side does not speak xe's protocol")
    if major != MAJOR:
        raise ProtocolError(f"the other side speaks version {major} of the protocol, this one version {MAJOR}")
    return int(minor)


class Decoder:
    """Bytes in, in any pieces; messages out, and `bytes` for the raw bytes that follow a `Chunk`.

    What has been fed and not taken is kept, so a reader takes everything after each `feed`. After a `ProtocolError`
    the stream cannot be read on. No message may be longer than `longest`.
    """

    __slots__ = ("_buffer", "_longest", "_raw")

    def __init__(self, longest: int = LONGEST_MESSAGE) -> None:
        self._buffer = bytearray()
        self._longest = longest
        self._raw = 0

    @property
    def idle(self) -> bool:
        """Whether the stream is between two messages."""
        return not self._buffer and not self._raw

    def feed(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._buffer += data

    def take(self) -> Iterator[Message | bytes]:
        """What is complete. Raw bytes come as they arrive, never empty. Raises `ProtocolError`."""
        while self._buffer:
            if self._raw:
                piece = bytes(self._buffer[: self._raw])
                del self._buffer[: len(piece)]
                self._raw -= len(piece)
                yield piece
                continue
            message = self._message()
            if message is None:
                return
            if message.tag == CHUNK:
                self._raw = message.number()
                if self._raw < 0:
                    raise ProtocolError(f"a chunk of {self._raw} bytes")
            yield message

    def _message(self) -> Message | None:
        if len(self._buffer) < 4:
            return None
        (length,) = _INT.unpack_from(self._buffer)
        if not 8 <= length <= self._longest:
            raise ProtocolError(f"a message of {length} bytes")
        if len(self._buffer) < 4 + length:
            return None
        payload = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return decode(payload)


def decode(payload: bytes) -> Message:
    """The message of a whole payload, its length left out. Raises `ProtocolError`."""
    reader = _Reader(payload)
    kind, tag = reader.number(), reader.number()
    shape = _ARGUMENTS.get((kind, tag))
    if shape is None:
        raise ProtocolError(f"there is no message {kind}/{tag}")
    values = [reader.texts() if sort == "l" else reader.text() if sort == "s" else reader.number() for sort in shape]
    if reader.at != len(payload):
        raise ProtocolError(f"message {kind}/{tag} goes on after its end")
    return Message(kind, tag, *values)


class _Reader:
    __slots__ = ("at", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0

    def number(self) -> int:
        if self.at + 4 > len(self.payload):
            raise ProtocolError("a message ends within a number")
        (value,) = _INT.unpack_from(self.payload, self.at)
        self.at += 4
        return int(value)

    def text(self) -> str:
        length = self.number()
        if not 0 <= length <= len(self.payload) - self.at:
            raise ProtocolError(f"a text of {length} bytes in a message that is shorter")
        self.at += length
        return self.payload[self.at - length : self.at].decode("utf-8", "surrogateescape")

    def texts(self) -> tuple[str, ...]:
        count = self.number()
        if not 0 <= count <= MOST_STRINGS:
            raise ProtocolError(f"a list of {count} texts")
        return tuple([self.text() for _ in range(count)])
