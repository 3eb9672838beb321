"""A door for ordinary VNC viewers, which know no HTTP: a local port that leads to a console by `CONNECT`."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.api.viewer import connect, tls


@contextmanager
def tunnel(url: str, query: str) -> Iterator[int]:
    """The port, for as long as the block lasts. Viewers that stay on are hung up on at its end."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threads: list[threading.Thread] = []

        def accept() -> None:
            while not over.is_set():
                if select.select([listening], [], [], 0.1)[0]:
                    threads.append(threading.Thread(target=_carry, args=(listening.accept()[0], url, query, over)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            over.set()
            accepting.join(10)
            for thread in threads:
                thread.join(10)
            assert not any(thread.is_alive() for thread in (accepting, *threads))


def _carry(viewer: socket.socket, url: str, query: str, over: threading.Event) -> None:
    with viewer, tls(url) as secure:
        status, head, stream = connect(secure, query)
        assert status == 200, head
        viewer.sendall(bytes(stream.ahead))
        assert isinstance(secure, ssl.SSLSocket)
        while not over.is_set():
            ready = [secure] if secure.pending() else select.select([viewer, secure], [], [], 0.1)[0]
            for source in ready:
                target = secure if source is viewer else viewer
                try:
                    data = source.recv(1 << 16)
                    target.sendall(data)
                except OSError:
                    return
                if not data:
                    return
