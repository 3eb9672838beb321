"""Completion in bash and zsh, against a host: what they offer, and what a person sees who presses Tab."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.harness import InProcessHost
from tests.xe.terminal import ROOT, printed, socket_of

SCRIPT = ROOT / "packaging" / "xe-completion.bash"


def install(host: InProcessHost, directory: Path) -> None:
    """A program `xe` in a directory, which asks this host."""
    program = directory / "xe"
    if not program.exists():
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m domzero.client.xe "$@" -s {socket_of(host)}\n')
        program.chmod(0o755)


def completed(host: InProcessHost, directory: Path, line: str) -> list[str]:
    """What bash offers at the end of a line."""
    install(host, directory)
    ask = f'source {SCRIPT}; COMP_LINE="$1"; COMP_POINT=${{#1}}; _xe; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", ask, "bash", line], capture_output=True, text=True, check=True, timeout=30,
        env={"PATH": f"{directory}:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "HOME": str(directory)},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.slow
def test_commands_parameters_and_values(host: InProcessHost, machine: str, tmp_path: Path) -> None:
    assert "vm-snapshot" in completed(host, tmp_path, "xe vm-sn")
    assert {"uuid=", "disk-size=", "--online"} <= set(completed(host, tmp_path, "xe vdi-resize "))
    assert completed(host, tmp_path, "xe vm-start v") == ["vm="]
    assert completed(host, tmp_path, "xe vm-start power-state=r") == ["running"]
    assert completed(host, tmp_path, "xe vm-start vm=m") == ["mine"]
    assert completed(host, tmp_path, f"xe vm-start uuid={machine[:30]}") == [machine]
    assert completed(host, tmp_path, f"xe vm-param-set uuid={machine} name-l") == ["name-label="]
    assert completed(host, tmp_path, f"xe vm-param-add uuid={machine} param-name=t") == ["tags"]
    assert "power-state" not in completed(host, tmp_path, f"xe vm-param-clear uuid={machine} param-name=")
    assert machine in completed(host, tmp_path, "xe console uuid=")
    assert completed(host, tmp_path, "xe event-wait class=net") == ["network", "network-sriov"]
    places = printed(host, "sr-list", "type=iso", "--minimal").strip().split(",")
    assert set(places) <= set(completed(host, tmp_path, "xe vdi-create sr-uuid="))
    assert completed(host, tmp_path, "xe help vlan-c") == ["vlan-create"]
    assert completed(host, tmp_path, "xe no-such-command x") == [""]


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["evil", "evil\\;\\$\\(touch\\ x"])
def test_a_name_is_nothing_but_text_to_the_shell(host: InProcessHost, machine: str, tmp_path: Path, begun: str) -> None:
    name = "evil;$(touch x), \\ it's `touch x` ~ *"
    printed(host, "vm-param-set", f"uuid={machine}", f"name-label={name}")
    (offered,) = completed(host, tmp_path, f"xe vm-start vm={begun}")
    read = subprocess.run(["bash", "-c", f"printf %s {offered}"], cwd=tmp_path, capture_output=True, text=True)
    assert (read.stdout, read.stderr) == (name, "")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_offers_the_same(host: InProcessHost, tmp_path: Path) -> None:
    completed(host, tmp_path, "xe x")
    ask = (
        'compadd() { print -l -- "$@" }; words=(xe vm-sta); CURRENT=2; PREFIX=vm-sta; source packaging/_xe; '
        "words=(xe vm-start power-state=r); CURRENT=3; PREFIX=power-state=r; source packaging/_xe"
    )
    done = subprocess.run(
        ["zsh", "-f", "-c", ask], capture_output=True, text=True, check=True, timeout=30, cwd=ROOT,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "XE_COMPLETION": str(SCRIPT)},
    )  # fmt: skip
    assert done.stdout.split() == ["-Q", "-S", "--", "vm-start", "-Q", "-S", "--", "power-state=running"]


@contextmanager
def typing(directory: Path, *shell: str) -> Iterator[int]:
    """Somebody at a terminal on which a shell runs, and the terminal."""
    screen, keyboard = pty.openpty()
    environment = {
        "PATH": f"{directory}:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "HOME": str(directory), "TERM": "dumb",
        "XE_COMPLETION": str(SCRIPT), "PS1": "$ ", "INPUTRC": os.devnull, "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", *shell], stdin=keyboard, stdout=keyboard, stderr=keyboard, env=environment
    ) as running:
        os.close(keyboard)
        try:
            yield screen
        finally:
            running.kill()
            os.close(screen)


def shown(screen: int, keys: str, expected: str) -> None:
    """Press keys until what is expected stands on the screen."""
    os.write(screen, keys.encode())
    seen, deadline = "", time.monotonic() + 20
    while expected not in seen:
        assert select.select([screen], [], [], max(0, deadline - time.monotonic()))[0], seen
        seen += os.read(screen, 4096).decode(errors="replace")


@pytest.mark.slow
def test_a_person_presses_tab_in_bash(host: InProcessHost, machine: str, tmp_path: Path) -> None:
    install(host, tmp_path)
    with typing(tmp_path, "bash", "--norc", "--noprofile", "-i") as screen:
        shown(screen, f"source {SCRIPT}; echo rea''dy\n", "ready\r\n")
        shown(screen, "xe vm-sta\t", "vm-start ")
        shown(screen, "v\t", "vm=")
        shown(screen, "m\t", "mine ")
        shown(screen, "--mu\t", "--multiple ")
        shown(screen, "power-state=h\t", "halted ")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_a_person_presses_tab_in_zsh(host: InProcessHost, machine: str, tmp_path: Path) -> None:
    install(host, tmp_path)
    start = f"fpath=({SCRIPT.parent} $fpath); autoload -U compinit; compinit -D -u; echo rea''dy\n"
    with typing(tmp_path, "zsh", "-f", "-i") as screen:
        shown(screen, start, "ready\r\n")
        shown(screen, "xe vm-sta\t", "vm-start")
        shown(screen, " power-state=h\t", "power-state=halted")
        shown(screen, " vm=m\t", "vm=mine")
