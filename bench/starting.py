"""How long people and test suites wait for a simulated host: its first start, its next ones, and its end."""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.hosts import host
from bench.report import Row, Section, Target, spread

NOTES = """`domzero serve --hypervisor sim` from exec until its line `ready`. The first start makes certificate,
password, storage and templates; the next ones find them. An end is from SIGTERM until the process is gone, with one
client that is connected over TLS and idle."""

LIMIT = Target(most=1.0)


def measure(quick: bool) -> Section:
    """Several hosts, one after the other."""
    section = Section("Starting a simulated host", NOTES)
    first: list[float] = []
    again: list[float] = []
    ends: list[float] = []
    for _ in range(2 if quick else 10):
        with tempfile.TemporaryDirectory() as name:
            for starts in (first, again):
                with host(Path(name), core=None) as running:
                    starts.append(running.start_seconds)
                    client = connected(int(running.port))
                    begin = time.monotonic()
                ends.append(time.monotonic() - begin)
                client.close()
    _add(section, "seconds from exec to serving, first start", first)
    _add(section, "seconds from exec to serving, next start", again)
    _add(section, "seconds from SIGTERM to the end", ends)
    return section


def connected(port: int) -> ssl.SSLSocket:
    """A client that has nothing to ask, as consoles and test suites keep them."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)))


def _add(section: Section, what: str, seconds: Sequence[float]) -> None:
    measured = spread(seconds)
    section.add(Row(what, measured.median, measured.text("s"), f"limit {LIMIT.most:g} s", LIMIT))
