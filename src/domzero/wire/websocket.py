"""The server's side of a WebSocket (RFC 6455) that carries a stream of bytes, without I/O.

The frames are the `websockets` library's work. Here a connection is handed a request's head and bytes, and gives bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from domzero.wire.http import HttpError, RequestHead

if TYPE_CHECKING:
    from websockets.server import ServerProtocol
    from websockets.typing import Subprotocol

SUBPROTOCOL = "binary"
"""What noVNC and XenServer's clients call a stream of bytes."""
LARGEST_MESSAGE = 1 << 20
"""Of what a client may send in one message."""
NORMAL, GOING_AWAY = 1000, 1001
"""Close codes (RFC 6455, section 7.4.1)."""

_HANDSHAKE = frozenset({"host", "connection", "upgrade"})


def is_upgrade(head: RequestHead) -> bool:
    """Whether a request asks for a WebSocket."""
    return head.method == "GET" and (head.header("upgrade") or "").strip().lower() == "websocket"


class WebSocket:
    """One connection. `output` must be sent after each other call; it may be empty."""

    def __init__(self, head: RequestHead) -> None:
        """Raises `HttpError` 400 for a handshake that is not one."""
        # A library that a server whose consoles nobody looks at does without.
        from websockets.frames import Opcode
        from websockets.server import ServerProtocol

        self._data = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)
        self._ended = False
        protocol = self._protocol = ServerProtocol(select_subprotocol=_select, max_size=LARGEST_MESSAGE)
        protocol.receive_data(_request(head))
        requests = protocol.events_received()
        if head.version != "1.1" or not requests:
            raise HttpError(400, "The WebSocket's handshake is malformed.")
        response = protocol.accept(requests[0])  # type: ignore[arg-type]  # the first event of a server is the request
        if response.status_code != 101:
            raise HttpError(400, f"The WebSocket's handshake is refused: {protocol.handshake_exc}")
        protocol.send_response(response)

    @property
    def over(self) -> bool:
        """Whether nothing more will come in."""
        return bool(self._protocol.close_expected()) or self._protocol.parser_exc is not None

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the peer, none at its end; what its messages carry comes back."""
        if self._ended:
            return b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._ended = True
            self._protocol.receive_eof()
        frames = self._protocol.events_received()
        return b"".join(frame.data for frame in frames if frame.opcode in self._data)  # type: ignore[union-attr]

    def send(self, data: bytes) -> None:
        """Send a message."""
        self._protocol.send_binary(data)

    def close(self, code: int) -> None:
        """Say goodbye, unless that was done."""
        from websockets.exceptions import InvalidState
        from websockets.protocol import OPEN

        if self._protocol.state is OPEN:
            try:
                self._protocol.send_close(code)
            except InvalidState:
                return

    def output(self) -> bytes:
        """What is to be sent now."""
        return b"".join(self._protocol.data_to_send())


def _request(head: RequestHead) -> bytes:
    """The handshake for the library, without what lets the caller in: the library logs what it reads."""
    headers = [(name, value) for name, value in head.headers if name in _HANDSHAKE or name.startswith("sec-websocket-")]
    lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _select(_protocol: ServerProtocol, offered: Iterable[Subprotocol]) -> Subprotocol | None:
    return next((name for name in offered if name == SUBPROTOCOL), None)
