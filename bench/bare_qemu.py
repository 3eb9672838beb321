"""QEMU started by hand with the very command line of a domzero machine: what a start costs with no toolstack at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

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
                running = self._until_running(monitor) - begin
                begin = time.monotonic()
                monitor.sendall(b'{"execute": "quit"}')
                os.waitpid(pid, 0)
                return running, time.monotonic() - begin
        finally:
            shutil.rmtree(self._files.directory)

    def _open(self) -> dict[int, int]:
        """Every descriptor that the command line names: its number there → one just like it here."""
        opened: dict[int, int] = {}
        sockets = {"monitor": self._files.monitor_socket, "serial": self._files.serial_socket}
        for word in self._line:
            if listening := re.match(r"socket,id=(\w+),fd=(\d+)", word):
                path = sockets.get(listening[1], self._files.guest_socket)
                opened[int(listening[2])] = listen(path).detach()
            elif image := re.match(r"fd=(\d+),set=", word):
                mode = os.O_RDONLY if len(opened) > len(sockets) + 1 else os.O_RDWR
                opened[int(image[1])] = os.open(self._image, mode | os.O_CLOEXEC)
        return opened

    def _until_running(self, monitor: socket.socket) -> float:
        for command in ("qmp_capabilities", "cont"):
            monitor.sendall(json.dumps({"execute": command}).encode())
        said = b""
        while b'"RESUME"' not in said:
            data = monitor.recv(CHUNK)
            if not data:
                raise RuntimeError(f"QEMU ended: {self._files.process_log.read_text()}")
            said += data
        return time.monotonic()
