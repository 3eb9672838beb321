"""A bounded load of XML-RPC calls: blocking sockets, one thread a connection, in a process of its own."""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: a Unix socket's path, or a port of loopback with TLS."""

    path: str | None
    port: int | None

    def connect(self) -> socket.socket:
        if self.path is not None:
            unix = socket.socket(socket.AF_UNIX)
            unix.connect(self.path)
            return unix
        assert self.port is not None
        plain = socket.create_connection(("127.0.0.1", self.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain)


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and read its whole response."""
    connection.sendall(request)
    received = connection.recv(262144)
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += connection.recv(262144)
    at = received.find(b"content-length: ") + 16
    total = end + 4 + int(received[at : received.find(b"\r", at)])
    while len(received) < total:
        received += connection.recv(262144)
    return received


def run(target: Target, request: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Calls per second over all connections, and the median and 99th percentile of one call in microseconds."""
    times: list[list[int]] = [[] for _ in range(connections)]
    opened = [target.connect() for _ in range(connections)]
    stop = time.monotonic() + seconds

    def work(connection: socket.socket, mine: list[int]) -> None:
        while time.monotonic() < stop:
            begin = time.perf_counter_ns()
            exchange(connection, request)
            mine.append(time.perf_counter_ns() - begin)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(opened, times, strict=True)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - begin
    for connection in opened:
        connection.close()
    everything = sorted(value for mine in times for value in mine)
    return {
        "rate": len(everything) / elapsed,
        "median": everything[len(everything) // 2] / 1000,
        "p99": everything[len(everything) * 99 // 100] / 1000,
    }


def main() -> None:
    """Prints the result as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--request", type=Path, required=True, help="a file with the bytes to send, again and again")
    parser.add_argument("--path")
    parser.add_argument("--port", type=int)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    request = arguments.request.read_bytes()
    target = Target(arguments.path, arguments.port)
    json.dump(run(target, request, arguments.connections, arguments.seconds), sys.stdout)


if __name__ == "__main__":
    main()
