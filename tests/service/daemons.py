"""Runs the `domzero` command as people, scripts and service managers do: a process with files for what it says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.api.harness import READY, disconnect

PATIENCE = 60.0
"""Seconds after which something that should have happened long ago counts as not happening."""

COMMAND = (sys.executable, "-m", "domzero.cli.main")
SIMULATED = ("--hypervisor", "sim", "--https", "127.0.0.1:0")


def environment(**more: str) -> dict[str, str]:
    """What a person's shell would hand on, without settings of domzero or a service manager of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOMZERO_", "NOTIFY_", "XDG_"))}
    return {**kept, **more}


def command(*arguments: str | Path, before: Sequence[str] = (), **more: str) -> subprocess.CompletedProcess[str]:
    """Run `domzero` to its end."""
    argv = [*before, *COMMAND, *map(str, arguments)]
    return subprocess.run(argv, env=environment(**more), capture_output=True, text=True, timeout=PATIENCE)


@dataclass
class Daemon:
    """`domzero serve` with its state in a directory. It may be started several times."""

    directory: Path
    arguments: tuple[str, ...] = SIMULATED
    environment: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def socket(self) -> Path:
        return self.state / "run" / "xapi"

    @property
    def log(self) -> str:
        return (self.state / "log" / "domzero.log").read_text()

    @property
    def said(self) -> str:
        """Its standard output so far."""
        return (self.directory / "stdout").read_text()

    @property
    def complained(self) -> str:
        """Its standard error so far."""
        return (self.directory / "stderr").read_text()

    @property
    def url(self) -> str:
        """Where it serves now."""
        return [line for line in self.said.splitlines() if line.startswith(READY)][-1].removeprefix(READY)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        """Start it and return at once."""
        argv = [*self.before, *COMMAND, "serve", "--state-dir", str(self.state), *self.arguments]
        with (self.directory / "stdout").open("wb") as output, (self.directory / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                argv, env=environment(**self.environment), stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )

    def start(self, times: int = 1) -> str:
        """Start it unless it runs, and wait until it has said that often that it serves. Returns its address."""
        if self.process is None:
            self.launch()
        self.wait_until(lambda: self.said.count(READY) >= times and self.said.endswith("\n"))
        return self.url

    def wait_until(self, condition: Any) -> None:
        """Wait for something that the running process brings about."""
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.complained}"
            assert time.monotonic() < deadline, self.complained
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end: the exit code."""
        assert self.process is not None
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()


@contextmanager
def daemon(directory: Path, *arguments: str, before: Sequence[str] = (), **more: str) -> Iterator[Daemon]:
    """A simulated host that is not started yet, ended afterwards if it runs then."""
    directory.mkdir(exist_ok=True)
    made = Daemon(directory, (*SIMULATED, *arguments), more, tuple(before))
    try:
        yield made
    finally:
        for line in made.said.splitlines():
            disconnect(line.removeprefix(READY))
        if made.process is not None:
            made.process.kill()
            made.process.wait(PATIENCE)


@contextmanager
def service_manager(path: Path) -> Iterator[socket.socket]:
    """A socket as systemd gives to its services (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(PATIENCE)
        yield listening
