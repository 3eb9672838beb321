"""Debian's own xenstored (package xen-utils-4.17), started without a hypervisor."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 10.0
_SOURCE = Path(__file__).with_name("xenstored_alone.c")


class MissingError(Exception):
    """It cannot be started here; the text says why."""


@contextlib.contextmanager
def xenstored(directory: Path) -> Iterator[tuple[int, Path]]:
    """Its process id and its socket, until the block ends. Raises `MissingError`."""
    found = sorted(Path("/usr/lib").glob("xen-*/bin/xenstored"))
    compiler = shutil.which("cc")
    if not found or compiler is None:
        raise MissingError("takes Debian's xen-utils and a C compiler")
    library, socket = directory / "alone.so", directory / "socket"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-w", "-o", library, _SOURCE], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "XENSTORED_RUNDIR": str(directory)}
    log = (directory / "log").open("wb")
    with log, subprocess.Popen([found[-1], "--no-fork"], env=environment, stdout=log, stderr=log) as child:
        try:
            end = time.monotonic() + PATIENCE
            while not socket.exists() and child.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            if child.poll() is not None or not socket.exists():
                raise MissingError(f"xenstored does not start: {(directory / 'log').read_text()[-200:]}")
            yield child.pid, socket
        finally:
            child.terminate()
