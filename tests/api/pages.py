"""Pages as curl asks for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.api.harness import PASSWORD, InProcessHost

CURL = ("curl", "--silent", "--show-error", "--insecure", "--fail-with-body", "--max-time", "60")


def get(host: InProcessHost, page: str, *, user: str = "root", target: Path | None = None) -> tuple[bool, bytes]:
    """Whether the page was had, and what it (or the error page) says, or nothing where it went to a file."""
    where = () if target is None else ("--output", str(target))
    command = (*CURL, "--user", f"{user}:{PASSWORD}", *where, f"{host.url}{page}")
    done = subprocess.run(command, capture_output=True)
    return done.returncode == 0, done.stdout


def put(host: InProcessHost, page: str, content: Path, *options: str, user: str = "root") -> tuple[bool, bytes]:
    """Whether the file was taken, and what was answered."""
    command = (*CURL, "--user", f"{user}:{PASSWORD}", *options, "--upload-file", str(content), f"{host.url}{page}")
    done = subprocess.run(command, capture_output=True)
    return done.returncode == 0, done.stdout
