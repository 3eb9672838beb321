"""A real iSCSI target in user space (tgtd), on a port of its own of this machine alone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

IQN = "iqn.2026-01.org.example:disks"
PROGRAMS = ("tgtd", "tgtadm")

needs_tgt = pytest.mark.skipif(
    any(shutil.which(name, path="/usr/sbin:/usr/bin") is None for name in PROGRAMS), reason="tgt is not installed"
)


@dataclass
class Target:
    """A daemon with one target, number 1, which every initiator may use."""

    control: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def device_config(self) -> dict[str, str]:
        return {"target": "127.0.0.1", "port": str(self.port), "targetIQN": IQN}

    def admin(self, *arguments: str | Path) -> str:
        return subprocess.run(
            ["tgtadm", "-C", self.control, "--lld", "iscsi", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout

    def add_target(self, number: int, iqn: str) -> None:
        self.admin("--op", "new", "--mode", "target", "--tid", str(number), "-T", iqn)
        self.admin("--op", "bind", "--mode", "target", "--tid", str(number), "-I", "ALL")

    def remove_target(self, number: int) -> None:
        self.admin("--op", "delete", "--mode", "target", "--tid", str(number), "--force")

    def add(self, lun: int, image: Path) -> None:
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", str(lun), "-b", image)

    def set(self, lun: int, parameters: str) -> None:
        self.admin("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", str(lun), "--params", parameters)

    def remove(self, lun: int) -> None:
        self.admin("--op", "delete", "--mode", "logicalunit", "--tid", "1", "--lun", str(lun))

    def want(self, user: str, password: str) -> None:
        """From now on initiators have to log in."""
        self.admin("--op", "new", "--mode", "account", "--user", user, "--password", password)
        self.admin("--op", "bind", "--mode", "account", "--tid", "1", "--user", user)


@contextmanager
def running_target(log: Path) -> Iterator[Target]:
    """tgtd with one empty target. It ends with its targets: as long as there are any it heeds no signal but KILL."""
    for _ in range(5):
        with log.open("wb") as output, socket.create_server(("127.0.0.1", 0)) as finder:
            port = finder.getsockname()[1]
            finder.close()
            control = str(20000 + (os.getpid() + port) % 12000)  # tgtd takes numbers below 32768
            argv = ["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"]
            process = subprocess.Popen(argv, stdout=output, stderr=output)
        target = Target(control, port, process)
        try:
            if _answers(target):
                target.add_target(1, IQN)
                yield target
                return
        finally:
            _end(target)
    pytest.fail(log.read_text(errors="replace"))


def _answers(target: Target) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and target.process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", target.port), timeout=1).close()
            return True
        time.sleep(0.01)
    return False


def _end(target: Target) -> None:
    with contextlib.suppress(subprocess.SubprocessError):
        for number in re.findall(r"^Target (\d+):", target.admin("--op", "show", "--mode", "target"), re.MULTILINE):
            target.remove_target(int(number))
        target.admin("--op", "delete", "--mode", "system")
    try:
        target.process.wait(2)
    except subprocess.TimeoutExpired:
        target.process.kill()
        target.process.wait()
