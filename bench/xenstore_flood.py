"""A domain that floods: `python -m bench.xenstore_flood asks|watches SOCKET`, until it is ended.

SOCKET is a path, or the number of a descriptor that is connected.
"""

from __future__ import annotations

import socket
import sys
import threading

from bench.processes import READY
from bench.xenstore import HEADER, READ, WATCH, WRITE


def main() -> None:
    """Ask without a pause, and read all that comes."""
    if sys.argv[2].isdecimal():
        connection = socket.socket(fileno=int(sys.argv[2]))
        connection.setblocking(True)
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(sys.argv[2])
    if sys.argv[1] == "watches":
        for number in range(100):
            connection.sendall(message(WATCH, b"data\0%d\0" % number))
        flood = message(WRITE, b"data/x\0value") * 100
    else:
        flood = message(READ, b"data\0") * 1000
    threading.Thread(target=drain, args=(connection,), daemon=True).start()
    print(READY, flush=True)
    while True:
        connection.sendall(flood)


def message(operation: int, payload: bytes) -> bytes:
    return HEADER.pack(operation, 1, 0, len(payload)) + payload


def drain(connection: socket.socket) -> None:
    while connection.recv(65536):
        continue


if __name__ == "__main__":
    main()
