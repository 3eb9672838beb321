"""Processes that a measurement needs: started with the server on one processor and the load on another, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

READY = "ready "
SERVER_CORE, LOAD_CORE = 0, 1
TWO_CORES = (os.cpu_count() or 1) > 1


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one processor, where there are two."""
    if TWO_CORES:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


@contextlib.contextmanager
def server(*arguments: str | Path, core: int | None = SERVER_CORE) -> Iterator[tuple[int, str]]:
    """`python -m ARGUMENTS` until the block ends: its process id and what follows `ready ` on its standard output."""
    with process([sys.executable, "-m", *arguments]) as child:
        assert child.stdout is not None
        for line in child.stdout:
            before, ready, said = line.partition(READY)
            if ready and before in ("", "domzero: "):
                break
        else:
            raise RuntimeError(f"{arguments[0]} did not start")
        if core is not None:
            pin(child.pid, core)
        yield child.pid, said.strip()


@contextlib.contextmanager
def process(command: Sequence[str | Path], keep: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """A child with pipes to its standard input and output, told to end when the block does.

    It has the descriptors to be kept, too, under their own numbers.
    """
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=keep)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()


def output(*arguments: str | Path, core: int = LOAD_CORE) -> str:
    """What `python -m ARGUMENTS` prints, run on a processor of its own."""
    command = [sys.executable, "-m", *arguments]
    if TWO_CORES:
        command = ["taskset", "--cpu-list", str(core), *command]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout


def processor_seconds(pid: int) -> float:
    """Processor time that the threads of a process have used (proc(5), schedstat: nanoseconds)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def resident_bytes(pid: int) -> int:
    """Memory that a process has, its own and shared."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
