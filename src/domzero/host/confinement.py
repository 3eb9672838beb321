"""What shuts in a child process that reads what strangers wrote (decision 0033).

`deprived` goes in front of a program that looks after the rest itself, as QEMU does. `enter` is for our own programs:
they open and load what they need, shut themselves in, and only then read the first foreign byte.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CHANGING_USER = ("setuid", "setgid", "sys_chroot", "dac_read_search", "net_bind_service")
"""Capabilities with which a child of root finds its files, calls NFS servers that ask for a low port, then changes its
root directory and its user."""
READING_DISKS = ("dac_override", "dac_read_search", "net_bind_service")
"""Those with which one that stays root opens disks, whoever they belong to."""

FILTER_LIBRARY = "libseccomp.so.2"
"""QEMU loads it too (Debian: libseccomp2)."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
"""prctl(2)"""
_UNUSED = (ctypes.c_ulong(0),) * 3
_CAPABILITIES = 64
"""More than any kernel has (capabilities(7)); it refuses the numbers that it does not know."""
_CAPABILITY_VERSION = 0x20080522
"""capset(2), the version with two words for each set."""
_ALLOW, _ERRNO_EPERM = 0x7FFF0000, 0x00050000 | 1
"""seccomp_init(3): what is done about a system call."""


class ConfinementError(Exception):
    """A process cannot be shut in; the text says why."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """Where a process is shut in, and as whom."""

    directory: Path
    """Empty, and not the user's: what the process sees as `/`. Nothing comes of it without a user."""
    user: int | None
    """The number of a user and a group that nobody else has; None where we are not root, and stay who we are."""


def deprived(keep: Iterable[str] = CHANGING_USER) -> list[str]:
    """Goes in front of the command line of root's child: it has these capabilities (by setpriv's names), and neither
    it nor what it starts can get another."""
    bounds = ",".join(["-all", *(f"+{name}" for name in keep)])
    return ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={bounds}", "--"]


def enter(confinement: Confinement, limits: Mapping[int, int], system_calls: Iterable[str]) -> None:
    """Shut this process in, for good: an empty root directory, a user of its own without groups, no capability, no
    way to get any, and only these system calls; it dies with its parent and leaves no core. Raises `ConfinementError`.

    `limits` are setrlimit(2)'s, by number. What the process needs, it has open and loaded.
    """
    kernel = ctypes.CDLL(None, use_errno=True)
    try:
        rules = _filter(system_calls)
        if confinement.user is not None:
            _leave(kernel, confinement.directory, confinement.user)
        for number, most in {**limits, resource.RLIMIT_CORE: 0}.items():
            resource.setrlimit(number, (most, most))
        # The change of user has taken this away, where it was there.
        _prctl(kernel, _PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(kernel, _PR_SET_DUMPABLE, 0)
        _prctl(kernel, _PR_SET_NO_NEW_PRIVS, 1)
        rules()
    except (OSError, ValueError) as error:
        raise ConfinementError(f"a process cannot be shut in: {error}") from error


def _leave(kernel: ctypes.CDLL, directory: Path, user: int) -> None:
    """Give up root's directory, names and rights."""
    if os.listdir(directory):
        raise OSError(f"{directory} is not empty")
    os.chroot(directory)
    os.chdir("/")
    for capability in range(_CAPABILITIES):
        # A daemon without CAP_SETPCAP cannot: then no_new_privs alone keeps the rest out of reach.
        if kernel.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), *_UNUSED) < 0:
            break
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if kernel.capset(header, nothing) < 0:
        raise OSError(ctypes.get_errno(), "capabilities stay")


class _Filter:
    """libseccomp's filter, ready to be called, which puts it in force (seccomp_load(3))."""

    def __init__(self, library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
        self._library = library
        self._context = context

    def __call__(self) -> None:
        if (refused := self._library.seccomp_load(self._context)) < 0:
            raise OSError(-refused, f"the system call filter is refused: {os.strerror(-refused)}")


def _filter(system_calls: Iterable[str]) -> _Filter:
    """All but these system calls fail with EPERM. Those that this processor does not have are no loss."""
    library = ctypes.CDLL(FILTER_LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO_EPERM)))
    for name in system_calls:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            continue
        refused = library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, 0, None)
        if refused < 0:
            raise OSError(-refused, f"the system call {name} cannot be allowed")
    return _Filter(library, context)


def _prctl(kernel: ctypes.CDLL, option: int, value: int) -> None:
    if kernel.prctl(option, ctypes.c_ulong(value), *_UNUSED) < 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} fails")
