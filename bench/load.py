"""A bounded load of identical HTTP requests over connections that stay open, in a process of its own.

One connection is driven with blocking calls, several by one loop over epoll: cheaper than a thread for each, so that
the load needs less of its processor than the server of its own. Prints a JSON object: calls per second, the median and
99th percentile of a call in seconds, and which part of its processor the load used.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

CHUNK = 1 << 16
"""Bytes read at a time. Room for many more would be mapped and unmapped at each read, which costs more than reading."""
LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to."""

    rate: float
    median: float
    p99: float
    own_part: float
    count: int


def connect(target: str) -> socket.socket:
    """Connect to a Unix socket's path, or with TLS to a port of the loopback interface."""
    if not target.isdigit():
        unix = socket.socket(socket.AF_UNIX)
        unix.connect(target)
        return unix
    plain = socket.create_connection(("127.0.0.1", int(target)))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


class Exchange:
    """A connection with a request under way."""

    def __init__(self, connection: socket.socket, request: bytes, times: list[int]) -> None:
        self.connection = connection
        self.request = request
        self._times = times
        self._head = b"\0"
        self._wanted = 0
        self._received = b""
        self._begun = 0
        self._send = connection.send
        self._receive = connection.recv

    def send(self) -> None:
        """Begin. A request is small enough to be taken at once."""
        self._begun = time.perf_counter_ns()
        if self._send(self.request) != len(self.request):
            raise BlockingIOError("the request did not fit into the socket's buffer")

    def take(self) -> bytes | None:
        """Read what has come: the whole answer, or None while some of it is missing.

        Raises `ConnectionError` when the server hung up.
        """
        try:
            received = self._receive(CHUNK)
        except ssl.SSLWantReadError:
            return None
        if not received:
            raise ConnectionError("the server hung up")
        if self._received:
            received = self._received + received
        # Answers to one request have one head: when it is the one before, so is the length.
        if not received.startswith(self._head) and not self._read_head(received):
            self._received = received
            return None
        if len(received) < self._wanted:
            self._received = received
            return None
        self._times.append(time.perf_counter_ns() - self._begun)
        self._received = b""
        return received

    def _read_head(self, received: bytes) -> bool:
        end = received.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        self._head = received[:end]
        at = self._head.lower().find(LENGTH) + len(LENGTH)
        self._wanted = end + int(self._head[at : self._head.find(b"\r", at)])
        return True


def drive_one(exchange: Exchange, stop: float) -> None:
    """One connection, one call after the other."""
    while time.monotonic() < stop:
        exchange.send()
        while exchange.take() is None:
            continue


def drive_many(exchanges: list[Exchange], stop: float) -> None:
    """Several connections, each with a call under way all the time."""
    waiting = select.epoll()
    by_number = {exchange.connection.fileno(): exchange for exchange in exchanges}
    for descriptor, exchange in by_number.items():
        exchange.connection.setblocking(False)
        waiting.register(descriptor, select.EPOLLIN)
        exchange.send()
    left = len(exchanges)
    while left:
        again = time.monotonic() < stop
        for descriptor, _ in waiting.poll(5.0):
            exchange = by_number[descriptor]
            if exchange.take() is None:
                continue
            if again:
                exchange.send()
            else:
                left -= 1
                waiting.unregister(descriptor)
    waiting.close()


def run(target: str, request: bytes, connections: int, seconds: float) -> Load:
    """Load the target for some seconds."""
    times: list[int] = []
    exchanges = [Exchange(connect(target), request, times) for _ in range(connections)]
    exchanges[0].send()
    while exchanges[0].take() is None:
        continue
    times.clear()
    begin, used = time.monotonic(), time.process_time()
    if connections == 1:
        drive_one(exchanges[0], begin + seconds)
    else:
        drive_many(exchanges, begin + seconds)
    elapsed, used = time.monotonic() - begin, time.process_time() - used
    for exchange in exchanges:
        exchange.connection.close()
    times.sort()
    count = len(times)
    return Load(count / elapsed, times[count // 2] / 1e9, times[count * 99 // 100] / 1e9, used / elapsed, count)


def main() -> None:
    """Runs one load and prints it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", help="the path of a Unix socket, or a port of the loopback interface, for TLS")
    parser.add_argument("request", type=Path, help="a file with the bytes to send, again and again")
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    json.dump(asdict(run(given.target, given.request.read_bytes(), given.connections, given.seconds)), sys.stdout)


if __name__ == "__main__":
    main()
