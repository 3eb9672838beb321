"""What a guest could do that took over the process it runs in, or the one that shows its text.

The attempts are system calls of the very processes, made by a tracer (`inside`): their own user, root directory, rights
and filter answer. The same attempts are made by a process at large, where each succeeds, and by one that has only the
user, since each wall is to stand by itself.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EACCES, ENOENT, EPERM
from pathlib import Path
from typing import Any

import pytest

from domzero.hands import FIRST_USER, TERMINAL_USERS, USERS
from domzero.host.confinement import CHANGING_USER
from domzero.host.console.terminals import PROGRAM
from tests.api.guest import make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login
from tests.api.viewer import connect, handshake, picture, tls
from tests.host.children import arguments, children, status
from tests.isolation.inside import ask

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0 or platform.machine() != "x86_64", reason="needs root, and an x86-64"),
]

REFUSED = {-EACCES, -EPERM, -ENOENT}
OPEN, CLOSE, SOCKET, CONNECT, KILL, PTRACE, MKDIR, CHROOT, SETUID, EXECVE, UNSHARE = (
    2, 3, 41, 42, 62, 101, 83, 161, 105, 59, 272,
)  # fmt: skip
PIDFD_OPEN, PIDFD_GETFD = 434, 438
SEIZE = 0x4206
"""PTRACE_SEIZE, which stops nobody: the kernel asks the same of it as of other ways to trace."""
NEW_USER = 0x10000000
NUMBERS = {"setuid": 7, "setgid": 6, "sys_chroot": 18, "dac_read_search": 2, "net_bind_service": 10}
"""linux/capability.h"""
BOUNDS = sum(1 << NUMBERS[name] for name in CHANGING_USER)

Attempt = list[list[Any]]
"""Calls, of which the last one's answer, or that of the first that is refused, is the attempt's."""


@dataclass(frozen=True)
class Scene:
    """Two machines that run, one that is suspended, and a viewer of the first one's text."""

    host: InProcessHost
    directory: Path
    api: Any
    mine: str
    other: str
    asleep: str
    descendants: frozenset[int]

    def qemu(self, vm: str) -> int:
        """The machine's process."""
        name = f"guest=domzero-{self.api.VM.get_domid(vm)},debug-threads=on"
        return self.only(lambda words: name.encode() in words)

    def terminal(self) -> int:
        """The process that shows the first machine's text."""
        return self.only(lambda words: PROGRAM.encode() in words)

    def only(self, test: Callable[[list[bytes]], bool]) -> int:
        (pid,) = (pid for pid in self.descendants if test(arguments(pid)))
        return pid


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    before = set(children())
    directory = Path(tempfile.mkdtemp(prefix="dz-"))
    directory.chmod(0o755)
    try:
        with in_process(directory, hypervisor="qemu", accel="tcg", network="user") as host:
            session = login(host.url)
            api = session.xenapi
            mine, other, asleep = machines = [make_machine(host, api, name).vm for name in ("mine", "other", "asleep")]
            for vm in machines:
                api.VM.start(vm, False, False)
            api.VM.suspend(asleep)
            consoles = {api.console.get_protocol(ref): ref for ref in api.VM.get_consoles(mine)}
            with tls(host.url) as connection:
                query = f"ref={consoles['rfb']}&session_id={session.handle}"
                status, _, stream = connect(connection, query)
                assert status == 200
                picture(stream, *handshake(stream, "003.008")[:2])
                yield Scene(host, directory, api, mine, other, asleep, frozenset(children().keys() - before))
            for vm in machines:
                remove_machine(api, vm)
    finally:
        shutil.rmtree(directory)


def connecting(path: Path) -> Attempt:
    address = struct.pack("=H", socket.AF_UNIX) + os.fsencode(path) + b"\0"
    return [
        [SOCKET, socket.AF_UNIX, socket.SOCK_STREAM, 0],
        [CONNECT, {"result": 0}, {"hex": address.hex()}, len(address)],
    ]


def attempts(scene: Scene, against: int) -> dict[str, Attempt]:
    """Against everything the host keeps, and against another process. None does harm where it succeeds."""
    found: dict[str, Attempt] = {}
    for place, _, names in os.walk(scene.directory / "state"):
        for path in (Path(place) / name for name in names):
            mode = path.lstat().st_mode
            if stat.S_ISSOCK(mode):
                found[f"connect to {path}"] = connecting(path)
            elif stat.S_ISREG(mode):
                found[f"read {path}"] = [[OPEN, {"text": str(path)}, os.O_RDONLY]]
                found[f"write {path}"] = [[OPEN, {"text": str(path)}, os.O_WRONLY]]
    readable = (f"/proc/{against}/mem", f"/proc/{against}/environ", f"/proc/{os.getpid()}/mem", "/etc/shadow")
    return {
        **found,
        **{f"read {path}": [[OPEN, {"text": path}, os.O_RDONLY]] for path in readable},
        "make a file": [[OPEN, {"text": "file"}, os.O_WRONLY | os.O_CREAT, 0o600]],
        "make a directory": [[MKDIR, {"text": "directory"}, 0o700]],
        "look around": [[OPEN, {"text": "."}, os.O_RDONLY | os.O_DIRECTORY]],
        "signal the other": [[KILL, against, 0]],
        "signal the daemon": [[KILL, os.getpid(), 0]],
        "trace the other": [[PTRACE, SEIZE, against, 0, 0]],
        "take the other's descriptor": [[PIDFD_OPEN, against, 0], [PIDFD_GETFD, {"result": 0}, 0, 0]],
        "become root": [[SETUID, 0]],
        "change the root directory": [[CHROOT, {"text": "."}]],
    }


def made(pid: int, wanted: dict[str, Attempt]) -> dict[str, int | None]:
    """The answer to each attempt. What an attempt opened is closed before the next."""
    calls: list[list[Any]] = []
    last: dict[str, tuple[int, int]] = {}
    for name, attempt in wanted.items():
        begin = len(calls)
        for number, *given in attempt:
            shifted = [{"result": g["result"] + begin} if isinstance(g, dict) and "result" in g else g for g in given]
            calls.append([number, *shifted])
        last[name] = (begin, len(calls))
        opens = [begin + at for at, (number, *_) in enumerate(attempt) if number in (OPEN, SOCKET, PIDFD_OPEN)]
        calls += [[CLOSE, {"result": at}] for at in opens]
    answers = ask(pid, calls)
    return {
        name: next((a for a in answers[begin:end] if a is not None and a < 0), answers[end - 1])
        for name, (begin, end) in last.items()
    }


def successes(answers: dict[str, int | None]) -> dict[str, int | None]:
    return {name: answer for name, answer in answers.items() if answer not in REFUSED}


@contextmanager
def sleeper(*before: str, directory: Path) -> Iterator[int]:
    """A process that does nothing by itself."""
    process = subprocess.Popen([*before, "sleep", "1000"], cwd=directory)
    try:
        deadline = time.monotonic() + 30
        while arguments(process.pid)[0] != b"sleep":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_what_there_is_to_be_had(scene: Scene) -> None:
    """The attempts are against what matters: it is there."""
    found = "\n".join(attempts(scene, scene.qemu(scene.other)))
    api, domid = scene.api, scene.api.VM.get_domid(scene.other)
    disk = next(api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(scene.other) if api.VBD.get_type(vbd) == "Disk")
    image = api.VM.get_suspend_VDI(scene.asleep)
    for wanted in (
        *(f"read {scene.directory}/state/{name}\n" for name in ("state.db", "passwords.json", "run/xenstore.journal")),
        *(f"connect to {scene.directory}/state/run/{name}\n" for name in ("xapi", "xenstore")),
        *(f"/run/{domid}/{name}.sock\n" for name in ("qmp", "vnc", "serial", "guest", "tools")),
        api.VDI.get_uuid(disk),
        api.VDI.get_uuid(image),
    ):
        assert wanted in found


def test_a_process_at_large_has_it_all(scene: Scene, tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    for victim in (scene.qemu(scene.other), scene.terminal()):
        (tmp_path / str(victim)).mkdir()
        with sleeper(directory=tmp_path / str(victim)) as pid:
            refused = {name for name, answer in made(pid, attempts(scene, victim)).items() if answer in REFUSED}
            assert refused == set()


def test_a_machine_reaches_no_other(scene: Scene) -> None:
    for victim in (scene.qemu(scene.other), scene.terminal()):
        assert successes(made(scene.qemu(scene.mine), attempts(scene, victim))) == {}


def test_what_shows_text_reaches_nothing(scene: Scene) -> None:
    tries = attempts(scene, scene.qemu(scene.other))
    tries |= {
        f"a socket of family {family}": [[SOCKET, family, socket.SOCK_STREAM, 0]]
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
    }
    tries |= {"start something": [[EXECVE, {"text": "/bin/sh"}, 0, 0]], "make a namespace": [[UNSHARE, NEW_USER]]}
    assert successes(made(scene.terminal(), tries)) == {}
    # Its own machine's process is as far away as any other.
    assert successes(made(scene.terminal(), attempts(scene, scene.qemu(scene.mine)))) == {}


@pytest.mark.parametrize("kind", ["machine", "text"])
def test_the_user_alone_keeps_it_out(scene: Scene, tmp_path: Path, kind: str) -> None:
    """Without the empty root directory and the filter."""
    mine = scene.qemu(scene.mine) if kind == "machine" else scene.terminal()
    user = status(mine)["Uid"].split()[0]
    closed = scene.directory / f"closed-{kind}"
    closed.mkdir(mode=0o711)
    as_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all", "--")
    with sleeper(*as_user, directory=closed) as pid:
        tries = attempts(scene, scene.qemu(scene.other))
        # Here somebody else has made the state directory, which all may enter; the template's kernel is no secret.
        public = {f"read {scene.directory}/state/guest/{name}" for name in ("vmlinuz", "initramfs")}
        assert successes(made(pid, tries)).keys() <= public


def test_every_child_is_shut_in(scene: Scene) -> None:
    """All that the daemon has running, by what the kernel says of it and each of its threads."""
    expected = {scene.qemu(scene.mine), scene.qemu(scene.other), scene.terminal()}
    assert scene.descendants & children().keys() == expected
    users = set()
    for pid in expected:
        user = status(pid)["Uid"].split()[0]
        users.add(int(user))
        for task in Path(f"/proc/{pid}/task").iterdir():
            fields = status(int(task.name))
            assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")
            assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {user}
            assert set(fields["Groups"].split()) <= {user}
            assert {int(fields[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {0}
            assert int(fields["CapBnd"], 16) & ~BOUNDS == 0
        root = Path(os.readlink(f"/proc/{pid}/root"))
        assert os.listdir(root) == []
        assert root.stat().st_uid == 0
        assert root.stat().st_mode & 0o022 == 0
        assert os.readlink(f"/proc/{pid}/cwd") == str(root)
        assert os.stat(f"/proc/{pid}/fd").st_uid == 0, (
            "it is not dumpable: no core, and no look into it by its own user"
        )
    assert len(users) == 3
    assert all(user in range(FIRST_USER, FIRST_USER + USERS) or user in TERMINAL_USERS for user in users)


def test_only_its_own_files_are_open(scene: Scene) -> None:
    """Of files its disks and its logs, of sockets none that another process has, too."""
    api = scene.api
    opened = {pid: descriptors(pid) for pid in scene.descendants & children().keys()}
    for vm in (scene.mine, scene.other):
        pid = scene.qemu(vm)
        disks = {api.VDI.get_uuid(api.VBD.get_VDI(v)) for v in api.VM.get_VBDs(vm) if api.VBD.get_type(v) == "Disk"}
        files = {Path(target) for target in opened[pid] if target.startswith("/") and not target.startswith("/dev/")}
        own = scene.directory / "state/run" / api.VM.get_domid(vm)
        foreign = {file for file in files if file.parent != own and not any(disk in file.name for disk in disks)}
        assert foreign == set()
        assert files - foreign >= {own / "serial.log", own / "qemu.log"}
    for pid, targets in opened.items():
        others = {target for other, theirs in opened.items() if other != pid for target in theirs}
        shared = {target for target in targets & others if target.startswith(("socket:", "pipe:"))}
        assert shared == set()


def descriptors(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # some are open for a moment only
            found.add(os.readlink(entry))
    return found


@pytest.mark.parametrize("forbidden", [[EXECVE, {"text": "/bin/sh"}, 0, 0], [UNSHARE, NEW_USER]])
def test_a_machine_that_would_start_something_is_killed(scene: Scene, forbidden: list[Any]) -> None:
    """Its process, or the thread that tries. The last test: each costs a machine."""
    vm = scene.mine if forbidden[0] == EXECVE else scene.other
    assert ask(scene.qemu(vm), [forbidden]) == [None]
