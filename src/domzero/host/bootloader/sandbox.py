"""The command line around a program that reads what a guest wrote: bubblewrap (bwrap(1)), setpriv(1), prlimit(1).

Inside there are the host's programs, read-only, one file to read and one empty directory to write: no other file, no
network, no process but this one, no capability, and no way to get any. As root the program gets a user of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUBBLEWRAP = "bwrap"
INPUT = "/disk"
OUTPUT = "/out"

NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
CHANGING_USER = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the program may use. Sizes are bytes."""

    memory: int = 1 << 30
    file: int = 512 << 20
    """The largest file it may write."""
    seconds: int = 30
    """Of processor time."""


def confined(program: Sequence[str], disk: Path, output: Path, user: int | None, limits: Limits) -> list[str]:
    """The program's command line with everything in front that confines it.

    It reads `INPUT` and writes below `OUTPUT`. `user` is whom to become, who owns `output`; None (for a caller that is
    not root) leaves the user as it is, in a user namespace where it means nothing. It is to run as the leader of a
    session, whose processes are killed together: of bubblewrap, killed alone and early, a child would wait for ever.
    """
    argv = [BUBBLEWRAP, "--die-with-parent", "--clearenv"]
    argv += ["--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--setenv", "LC_ALL", "C.UTF-8"]
    argv += [*NAMESPACES] if user is not None else ["--unshare-all"]
    for place in PROGRAMS:
        argv += ["--symlink", f"usr{place}", place] if Path(place).is_symlink() else ["--ro-bind-try", place, place]
    argv += ["--dev", "/dev", "--dir", "/tmp"]  # noqa: S108 - the sandbox's own, and empty
    argv += ["--ro-bind", str(disk), INPUT, "--bind", str(output), OUTPUT, "--chdir", "/", "--cap-drop", "ALL"]
    if user is not None:
        argv += [part for capability in CHANGING_USER for part in ("--cap-add", capability)]
    return [*argv, "--", *_as_user(user), *_limited(limits), *program]


def _as_user(user: int | None) -> list[str]:
    deprived = ["setpriv", "--no-new-privs", "--inh-caps=-all"]
    if user is None:
        return [*deprived, "--"]
    return [*deprived, "--bounding-set=-all", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]


def _limited(limits: Limits) -> list[str]:
    return [
        "prlimit",
        f"--as={limits.memory}",
        f"--fsize={limits.file}",
        f"--cpu={limits.seconds}",
        "--core=0",
        "--nofile=64",
        "--",
    ]
