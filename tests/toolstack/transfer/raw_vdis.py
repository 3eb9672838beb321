"""Disks moved by `curl` over TLS, under tasks, for hosts of both kinds."""

from __future__ import annotations

import os
import random
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.api.harness import InProcessHost, login
from tests.host.contents.conftest import children

MIB = 1 << 20
SIZE = 6 * MIB
HOLE = 2 * MIB
DATA = random.Random(3).randbytes(MIB) + bytes(HOLE) + random.Random(4).randbytes(MIB + 12345)
"""What most tests put on a disk, in front."""


@dataclass
class Desk:
    """A host, a session, a repository, and a directory for files."""

    host: InProcessHost
    api: Any
    session: str
    sr: str
    directory: Path

    def disk(self, size: int = SIZE, **fields: Any) -> str:
        """A new disk."""
        return str(
            self.api.VDI.create({
                "SR": self.sr, "name_label": "disk", "name_description": "", "virtual_size": str(size), "type": "user",
                "sharable": False, "read_only": False, "other_config": {}, "sm_config": {}, **fields,
            })
        )  # fmt: skip

    def file(self, content: bytes, name: str = "file") -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def curl(self, path: str, *arguments: str | Path, **query: str) -> tuple[int, bytes]:
        """Exit code and what was printed."""
        words = "&".join(f"{key}={value}" for key, value in {"session_id": self.session, **query}.items())
        argv = ["curl", "-sS", "-k", "-m", "30", *arguments, f"{self.host.url}{path}?{words}"]
        done = subprocess.run(argv, capture_output=True, check=False)
        return done.returncode, done.stdout

    def put(self, file: Path, *options: str, **query: str) -> dict[str, Any]:
        """Upload a file; what its task tells in the end."""
        task = str(self.api.task.create("upload", ""))
        self.curl("/import_raw_vdi", "-T", file, *options, task_id=task, **query)
        return self.ended(task)

    def get(self, **query: str) -> bytes:
        """Download a disk."""
        target = self.directory / "downloaded"
        task = str(self.api.task.create("download", ""))
        code, _ = self.curl("/export_raw_vdi", "-f", "-o", target, task_id=task, **query)
        assert (code, self.ended(task)["status"]) == (0, "success")
        return target.read_bytes()

    def ended(self, task: str) -> dict[str, Any]:
        """The record of a task that is over, which is removed."""
        deadline = time.monotonic() + 60
        while (record := dict(self.api.task.get_record(task)))["status"] in ("pending", "cancelling"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.api.task.destroy(task)
        return record

    def refused(self, **query: str) -> tuple[bytes, list[str]]:
        """Status line and the error of an upload that is not let in."""
        task = str(self.api.task.create("upload", ""))
        file = self.file(b"x" * 512, "small")
        _, printed = self.curl("/import_raw_vdi", "-i", "-H", "Expect:", "-T", file, task_id=task, **query)
        return printed.splitlines()[0], self.ended(task)["error_info"]

    def tools(self) -> list[int]:
        """QEMU's storage daemons among this process's children."""
        return [pid for pid, name in children().items() if name.startswith("qemu-storage")]

    def spools(self) -> list[str]:
        """Files that uploads have left."""
        place = Path(str(self.host.settings.state_dir)) / "transfers"
        return os.listdir(place) if place.exists() else []


def desk(host: InProcessHost, directory: Path) -> Desk:
    """A desk at a host, with a repository of type `file`."""
    session = login(host.url)
    api = session.xenapi
    (directory / "sr").mkdir()
    sr = api.SR.create(
        api.host.get_all()[0], {"location": str(directory / "sr")}, "0", "disks", "", "file", "user", False, {}
    )
    return Desk(host, api, session._session, sr, directory)
