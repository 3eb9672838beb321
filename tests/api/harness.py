"""Runs whole hosts for tests: in this process, or as the command that people run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import XenAPI
from argon2 import PasswordHasher

from domzero.daemon import Serving, serving
from domzero.front.certificates import FILE_NAME, make_certificate
from domzero.settings import Endpoint, Settings
from tests.api.trust import unverified

PASSWORD = "correct horse"
READY = "domzero: ready "
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Passwords of tests need not withstand anybody."""


_connected: list[tuple[str, Any]] = []


def plain_proxy(url: str) -> Any:
    """The standard library's client, for what the official binding treats in its own way."""
    proxy = xmlrpc.client.ServerProxy(url, context=unverified())
    _connected.append((url, proxy))
    return proxy


def connect(url: str) -> Any:
    """A session object of the official Python binding, not logged in; its connection is closed with the host."""
    session = XenAPI.Session(url, ignore_ssl=True)
    _connected.append((url, session))
    return session


def disconnect(url: str) -> None:
    """Close the connections of all session objects of a host."""
    for address, client in list(_connected):
        if address.startswith(url):
            client("close")()
            _connected.remove((address, client))


def login(url: str, user: str = "root", password: str = PASSWORD) -> Any:
    """A logged-in session of the official Python binding."""
    session = connect(url)
    session.xenapi.login_with_password(user, password, "1.0", "tests")
    return session


def password_file(directory: Path) -> Path:
    path = directory / "password"
    path.write_text(PASSWORD + "\n")
    return path


@cache
def certificate() -> bytes:
    """One for all hosts that this process runs: a key is expensive to make."""
    return make_certificate(["localhost"], ["127.0.0.1"], datetime.now(UTC))


def spare_making_a_certificate(state: Path) -> None:
    """Put down the certificate that a first start would make."""
    path = state / "tls" / FILE_NAME
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True)
        path.touch(0o600)
        path.write_bytes(certificate())


@dataclass
class InProcessHost:
    """A host in a thread of this process: quick to make, and its parts can be looked at."""

    settings: Settings
    daemon: Serving = field(init=False)
    loop: asyncio.AbstractEventLoop = field(init=False)
    thread: threading.Thread = field(init=False)

    @property
    def url(self) -> str:
        return self.daemon.url

    def run(self, work: Any) -> Any:
        """Run a coroutine in the host's event loop. What gives up by itself does so within a minute, and says more."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(65)

    def end(self) -> None:
        """Have it end, and wait for that."""
        with suppress(RuntimeError):  # Where it has ended by itself its loop is closed.
            self.loop.call_soon_threadsafe(self.daemon.stopping.set)
        self.thread.join(60)

    def wait_for_end(self) -> None:
        """Until it has ended by itself."""
        self.thread.join(60)
        assert not self.thread.is_alive()


@contextmanager
def in_process(directory: Path, **settings: Any) -> Iterator[InProcessHost]:
    """A host that serves on a free port of the loopback address, simulated unless told otherwise."""
    chosen = {
        "hypervisor": "sim",
        "https": Endpoint("127.0.0.1", 0),
        "state_dir": directory / "state",
        "root_password_file": password_file(directory),
    }
    host = InProcessHost(Settings({**chosen, **settings}))
    assert host.settings.state_dir is not None
    spare_making_a_certificate(host.settings.state_dir)
    ready = threading.Event()
    problems: list[BaseException] = []

    async def serve() -> None:
        async with serving(host.settings, CHEAP) as daemon:
            host.daemon, host.loop = daemon, asyncio.get_running_loop()
            ready.set()
            await daemon.stopping.wait()

    def body() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test below
            problems.append(error)
        finally:
            ready.set()

    host.thread = threading.Thread(target=body, name="host")
    host.thread.start()
    assert ready.wait(60)
    if problems:
        raise problems[0]
    try:
        yield host
    finally:
        disconnect(host.url)
        host.end()
    assert not host.thread.is_alive()
    if problems:
        raise problems[0]


@dataclass
class ProcessHost:
    """A host as a process of its own. `kill` ends it the hard way; it can be started again."""

    directory: Path
    arguments: tuple[str, ...] = ("--hypervisor", "sim")
    url: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> str:
        """Start, wait until it serves, and give its address."""
        command = [
            sys.executable, "-m", "domzero.cli.main", "serve", "--https", "127.0.0.1:0",
            "--state-dir", str(self.directory / "state"),
            "--root-password-file", str(password_file(self.directory)), *self.arguments,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(READY):
                self.url = line.removeprefix(READY).strip()
                return self.url
        assert self.process.stderr is not None
        raise AssertionError(f"the host did not start:\n{self.process.stderr.read()}")

    def kill(self) -> None:
        """SIGKILL."""
        self.end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: the graceful way."""
        self.end(signal.SIGTERM)

    def end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        os.kill(self.process.pid, number)
        self.process.communicate(timeout=60)
        self.process = None


@contextmanager
def as_process(directory: Path, *arguments: str) -> Iterator[ProcessHost]:
    """A running host process, ended afterwards."""
    host = ProcessHost(directory, arguments or ("--hypervisor", "sim"))
    host.start()
    try:
        yield host
    finally:
        disconnect(host.url)
        host.stop()
