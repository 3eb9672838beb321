"""QEMU started by hand with the very command line of a domzero machine: what a start costs with no toolstack at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from domzero.host.hypervisor.qemu.files import DomainFiles, listen
from domzero.host.process import spawn_detached

CHUNK = 65536


class BareMachine:
    """A command line taken from a running machine, to be run while the machine itself is halted.

    Its sockets and disk files are opened again under the numbers that it names; its directory is another.
    """

    def __init__(self, pid: int, theirs: Path, image: Path, directory: Path) -> None:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        self._files = DomainFiles(directory)
        self._image = image
        self._line = [argument.replace(str(theirs), str(directory)) for argument in line]

    def cycle(self) -> tuple[float, float]:
        """Seconds from exec to running, and from the order to quit until the process is reaped."""
        with self.running() as machine:
            pass
        return machine.start_seconds, machine.end_seconds

    @contextlib.contextmanager
    def running(self) -> Iterator[RunningMachine]:
        """The machine, running until the block ends."""
        self._files.create()
        opened = self._open()
        numbers = list(opened.values())
        log = os.open(self._files.process_log, os.O_WRONLY | os.O_APPEND)
        line = [re.sub(r"\bfd=(\d+)", lambda found: f"fd={opened[int(found[1])]}", word) for word in self._line]
        begin = time.monotonic()
        pid = spawn_detached(line, output=log, pass_fds=numbers)
        for number in (log, *numbers):
            os.close(number)
        try:
            with socket.socket(socket.AF_UNIX) as monitor:
                monitor.connect(str(self._files.monitor_socket))
                machine = RunningMachine(monitor, self._files)
                machine.command("qmp_capabilities")
                machine.command("cont")
                machine.wait_for("RESUME")
                machine.start_seconds = time.monotonic() - begin
                try:
                    yield machine
                finally:
                    begin = time.monotonic()
                    monitor.sendall(b'{"execute": "quit"}')
                    os.waitpid(pid, 0)
                    machine.end_seconds = time.monotonic() - begin
        finally:
            shutil.rmtree(self._files.directory)

    def _open(self) -> dict[int, int]:
        """Every descriptor that the command line names: its number there → one just like it here."""
        opened: dict[int, int] = {}
        sockets = {"monitor": self._files.monitor_socket, "serial": self._files.serial_socket}
        mode = os.O_RDWR
        for word in self._line:
            if listening := re.match(r"socket,id=([\w-]+),fd=(\d+)", word):
                path = sockets.get(listening[1], self._files.directory / f"{listening[1]}.bare")
                opened[int(listening[2])] = listen(path).detach()
            elif image := re.match(r"fd=(\d+),set=", word):
                opened[int(image[1])] = os.open(self._image, mode | os.O_CLOEXEC)
                mode = os.O_RDONLY  # the disk is opened for writing once
        return opened


class RunningMachine:
    """A bare machine with its monitor. Commands are waited for, each by itself."""

    def __init__(self, monitor: socket.socket, files: DomainFiles) -> None:
        self._monitor = monitor
        self._files = files
        self._lines = b""
        self._events: set[tuple[str, str | None]] = set()
        self.start_seconds = 0.0
        self.end_seconds = 0.0

    @property
    def serial_log(self) -> Path:
        """What the guest said."""
        return self._files.serial_log

    def command(self, name: str, fds: Sequence[int] = (), /, **arguments: object) -> None:
        """Send one command, with descriptors if there are any, and wait for its answer."""
        said = json.dumps({"execute": name, "arguments": arguments}).encode()
        if fds:
            socket.send_fds(self._monitor, [said], list(fds))
        else:
            self._monitor.sendall(said)
        while "return" not in (answer := self._read()):
            if "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']}")

    def wait_for(self, event: str, device: str | None = None) -> None:
        """Return when an event of this name, about this device, has come, once for each that came."""
        while (event, device) not in self._events:
            self._read()
        self._events.discard((event, device))

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._lines:
            data = self._monitor.recv(CHUNK)
            if not data:
                raise RuntimeError(f"QEMU ended: {self._files.process_log.read_text()}")
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self._events.add((message["event"], message.get("data", {}).get("device")))
        return message
