"""The two commands of the README where they may install nothing: they say what is missing, and stop.

That they install everything on a fresh Debian is what making the lab shows (tests/service/test_lab.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.sources import ROOT

pytestmark = pytest.mark.skipif(
    Path("/usr/sbin").resolve() == Path("/usr/bin").resolve(),
    reason="the scripts look there, too, and find what there is",
)

NEEDED = ("bash", "cut", "dirname", "grep", "id", "sh")
"""What the scripts themselves run before anything is installed."""

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")

MANY_LINES = 'i=0; while [ $i -lt 20000 ]; do echo "applet-$i"; i=$((i + 1)); done'

OLD_PYTHON = """
case $1 in
    -V) echo "Python 3.9.2" ;;
    *) case $2 in *version_info*) exit 1 ;; esac ;;
esac
"""


class Machine:
    """A checkout and the programs that there are; whoever runs a script there is not root."""

    def __init__(self, directory: Path) -> None:
        self.checkout, self._bin = directory / "checkout", directory / "bin"
        self._bin.mkdir()
        shutil.copytree(ROOT / "script", self.checkout / "script")
        for name in NEEDED:
            found = shutil.which(name)
            assert found, name
            (self._bin / name).symlink_to(found)
        self.has("python3")
        for place in (directory, self.checkout, self._bin):
            place.chmod(0o755)

    def has(self, name: str, does: str = "") -> None:
        """Another program, which does what a shell script says."""
        path = self._bin / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    def run(self, *command: str) -> tuple[int, list[str]]:
        """How a script ended, and what it said."""
        argv = [*(NOBODY if os.geteuid() == 0 else ()), *command]
        ended = subprocess.run(
            [shutil.which(argv[0]) or argv[0], *argv[1:]], cwd=self.checkout, env={"PATH": str(self._bin)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ended.stdout == ""
        return ended.returncode, ended.stderr.splitlines()


@pytest.fixture
def machine() -> Iterator[Machine]:
    # What pytest has for temporary files only its owner can look into.
    with tempfile.TemporaryDirectory(prefix="dz-") as directory:
        yield Machine(Path(directory))


def lacking(line: str) -> list[str]:
    assert line.startswith("bootstrap: this machine lacks: ")
    return line.removeprefix("bootstrap: this machine lacks: ").split()


@pytest.mark.parametrize("script", ["script/server", "script/test"])
def test_who_is_not_root_is_told_what_to_install(machine: Machine, script: str) -> None:
    machine.has("apt-get", "echo apt-get was run")
    code, (first, second) = machine.run(script)
    missing = lacking(first)
    assert code == 1
    assert {"qemu-system-x86", "qemu-utils", "zstd"} <= set(missing)
    assert ("curl" in missing) == (script == "script/test")
    assert second == f"bootstrap: run as root: apt-get install --no-install-recommends {' '.join(missing)}"
    assert not (machine.checkout / ".venv").exists()


@pytest.mark.parametrize("script", ["script/server", "script/test"])
def test_where_there_is_no_apt_the_names_are_those_of_debian(machine: Machine, script: str) -> None:
    code, (first, second) = machine.run(script)
    assert (code, "qemu-system-x86" in lacking(first)) == (1, True)
    assert second == "bootstrap: those are Debian's names; install the like with this system's package manager"


def test_a_python_that_is_too_old_is_named(machine: Machine) -> None:
    machine.has("python3", OLD_PYTHON)
    code, said = machine.run("script/server", "--hypervisor", "sim")
    assert (code, said) == (1, ["bootstrap: Python 3.11 or newer is needed; python3 is 3.9.2"])


def test_an_argument_that_there_is_not(machine: Machine) -> None:
    code, (said,) = machine.run("script/bootstrap", "--everything")
    assert (code, said) == (2, "script/bootstrap: unknown argument --everything (there are --dev and --python-only)")


def test_a_program_that_still_speaks_when_its_answer_is_known_is_there(machine: Machine) -> None:
    """busybox names its applets one by one; who stops listening at the one that counts must not call it missing."""
    machine.has("busybox", f"echo mke2fs; {MANY_LINES}")
    _, said = machine.run("script/bootstrap")
    assert "busybox-static" not in lacking(said[0])
