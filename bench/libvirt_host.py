"""libvirt as a peer: Debian's daemon and Python binding, run by `libvirt_peer.py` under Debian's own Python."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.processes import process

PYTHON = Path("/usr/bin/python3")
DAEMON = Path("/usr/sbin/libvirtd")
NAMESPACES = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
MISSING = "libvirt-daemon-system and python3-libvirt are not installed, or this is not root"


class Peer:
    """A libvirt daemon that answers questions; see `libvirt_peer.py` for what can be asked."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One operation's result. Raises `RuntimeError` with what libvirt said."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(json.dumps({"operation": operation, **arguments}), file=self._child.stdin, flush=True)
        line = self._child.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the peer ended"}
        if "error" in answer:
            raise RuntimeError(f"libvirt: {answer['error']}")
        return answer


def available() -> bool:
    """Whether a libvirt can be run here."""
    if os.geteuid() != 0 or not DAEMON.exists() or not PYTHON.exists():
        return False
    return subprocess.run([PYTHON, "-c", "import libvirt"], check=False, stderr=subprocess.DEVNULL).returncode == 0


@contextlib.contextmanager
def peer() -> Iterator[Peer | None]:
    """A private libvirt in mount and process namespaces of its own until the block ends; None where it is missing."""
    if not available():
        yield None
        return
    script = Path(__file__).with_name("libvirt_peer.py")
    with tempfile.TemporaryDirectory() as directory, process([*NAMESPACES, PYTHON, script, directory]) as child:
        connected = Peer(child)
        connected.ask("ready")
        yield connected
